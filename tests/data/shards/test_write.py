"""Writing shards: what goes in comes out, equal samples give equal bytes, and nothing half is left."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os

import pytest

from ealign_plugin.data.shards.index import Shard, ShardIndex
from ealign_plugin.data.shards.read import decode_record, read_shard
from ealign_plugin.data.shards.write import write_index, write_split
from ealign_plugin.errors import UserError
from ealign_plugin.files import atomic_write


def test_what_goes_in_comes_out(tmp_path, news, photo):
    samples = [news(number, number % 2) for number in range(5)]
    photos = [photo(seed) for seed in range(5)]
    rows = write_split(zip(samples, photos, strict=True), tmp_path, "train", samples_per_shard=2)
    write_index(tmp_path, {"train": rows}, source="test", ner={"name": "n", "version": "1"}, options={"a": 1})

    index = ShardIndex.load(tmp_path)
    assert [shard.samples for shard in index.shards["train"]] == [2, 2, 1]
    assert (index.samples("train"), index.samples("val")) == (5, 0)
    assert (index.ner, index.record["options"]) == ({"name": "n", "version": "1"}, {"a": 1})
    raws = [raw for shard in index.shards["train"] for raw in read_shard(shard)]
    assert [decode_record(raw) for raw in raws] == samples
    assert [raw.image for raw in raws] == photos
    assert [raw.key for raw in raws] == [sample.key for sample in samples]


def test_text_of_any_language_survives(tmp_path, news, photo):
    caption = "Łukasz Öztürk in 東京 — “at last” 🎉"
    sample = dataclasses.replace(news(), key="ключ-1_ü", caption=caption, caption_entities=())
    write_split([(sample, photo(0))], tmp_path, "train")
    (raw,) = read_shard(Shard(tmp_path / "train-000000.tar", 1))
    assert (raw.key, decode_record(raw)) == ("ключ-1_ü", sample)


def test_equal_samples_give_equal_bytes_at_any_time_and_place(tmp_path, news, photo, monkeypatch):
    def write(place):
        rows = write_split([(news(), photo(0)), (news(1), photo(1))], tmp_path / place, "train")
        write_index(tmp_path / place, {"train": rows}, source="test", ner={}, options={})
        return [path.read_bytes() for path in sorted((tmp_path / place).iterdir())], rows

    first, rows = write("a")
    monkeypatch.setattr("time.time", lambda: 2e9)
    assert write("b")[0] == first
    assert rows[0]["sha256"] == hashlib.sha256(first[1]).hexdigest()
    assert rows[0]["bytes"] == len(first[1])


@pytest.mark.parametrize("key", ["", "a.b", "a/b", "../a", "."])
def test_a_key_that_webdataset_cannot_hold_is_refused(tmp_path, news, photo, key):
    samples = [(news(), photo(0)), (dataclasses.replace(news(), key=key), photo(0))]
    with pytest.raises(UserError, match=f"sample {key!r}: a key is not empty and holds no dot and no slash"):
        write_split(samples, tmp_path, "train")
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_came_before_is_refused_also_in_another_shard(tmp_path, news, photo):
    samples = [(news(0), photo(0)), (news(1), photo(1)), (news(0), photo(2))]
    with pytest.raises(UserError, match="'train000_0': the key occurs twice in 'train'"):
        write_split(samples, tmp_path, "train", samples_per_shard=2)


def test_no_samples_make_no_shard(tmp_path):
    assert write_split([], tmp_path, "val") == []


def test_an_interrupted_shard_leaves_nothing(tmp_path, news, photo, monkeypatch):
    replace = os.replace

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_split([(news(), photo(0))], tmp_path, "train")
    with pytest.raises(KeyboardInterrupt):
        atomic_write(tmp_path / "metrics.json", b"{}")
    monkeypatch.setattr("os.replace", replace)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_whole_or_stays_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "new folder" / "metrics.json"
    atomic_write(path, b"old")
    atomic_write(path, b"new")
    assert path.read_bytes() == b"new"

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match=r"metrics.json: it cannot be written \(No space left on device\)"):
        atomic_write(path, b"newer")
    assert [(file.name, file.read_bytes()) for file in path.parent.iterdir()] == [("metrics.json", b"new")]


@pytest.mark.parametrize("below", ["", "folder"])
def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path, news, photo, below):
    (tmp_path / "file").write_text("in the way")
    folder = tmp_path / "file" / below
    with pytest.raises(UserError, match="cannot be written .* choose another folder"):
        write_split([(news(), photo(0))], folder, "train")
    with pytest.raises(UserError, match="cannot be written .* choose another folder"):
        atomic_write(folder / "index.json", b"{}")


def test_the_record_is_plain_json(index):
    raw = next(read_shard(index.shards["test"][0]))
    assert json.loads(raw.record)["caption"] == "Ruiz in Oslo."
