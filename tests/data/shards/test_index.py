"""index.json: what a folder holds, and one clear error for whatever is wrong with it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ealign_plugin.data.shards.index import ShardIndex
from ealign_plugin.errors import UserError
from ealign_plugin.news import SCHEMA_VERSION


@pytest.fixture
def folder(shards_of, tmp_path) -> Path:
    """Two shards of training samples, one of test samples."""
    return shards_of(tmp_path / "shards", {"train": 4, "test": 1}).folder


def change(folder: Path, edit) -> None:
    """Edit the index in place: ``edit`` changes the record, or returns another."""
    record = json.loads((folder / "index.json").read_text())
    record = edit(record) or record
    (folder / "index.json").write_text(json.dumps(record))


def message(folder: Path) -> str:
    with pytest.raises(UserError) as error:
        ShardIndex.load(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_it_tells_splits_shards_and_samples(folder):
    index = ShardIndex.load(str(folder))
    assert {split: [s.path.name for s in shards] for split, shards in index.shards.items()} == {
        "train": ["train-000000.tar", "train-000001.tar"],
        "test": ["test-000000.tar"],
    }
    assert [index.samples(split) for split in ("train", "val", "test")] == [8, 0, 2]
    assert index.record["schema"] == SCHEMA_VERSION


def test_no_folder(tmp_path):
    assert "no such folder of shards; make it first" in message(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    assert "no such folder of shards" in message(tmp_path / "file")


def test_no_index(folder):
    (folder / "index.json").unlink()
    assert "no index.json in it" in message(folder)


@pytest.mark.parametrize("text", ["", "{", "\xff", "[" * 100_000])
def test_an_index_that_is_no_json(folder, text):
    (folder / "index.json").write_text(text, encoding="latin-1")
    found = message(folder)
    assert found.startswith(f"{folder / 'index.json'}: it is no JSON (")
    assert found.endswith("; make the shards again")


@pytest.mark.parametrize(("text", "kind"), [("[]", "list"), ('"text"', "str")])
def test_an_index_that_is_no_object(folder, text, kind):
    (folder / "index.json").write_text(text)
    assert f"a JSON object expected, {kind} found; make the shards again" in message(folder)


@pytest.mark.parametrize("record", [{}, {"schema": 0}, {"schema": None}, {"schema": SCHEMA_VERSION + 1}])
def test_another_schema_version(folder, record):
    (folder / "index.json").write_text(json.dumps(record))
    found = message(folder)
    assert f"{SCHEMA_VERSION} expected; make the shards again" in found
    assert str(folder / "index.json") in found


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda r: r.pop("splits") and None, "the field 'splits' is missing"),
        (lambda r: r.pop("ner") and None, "the field 'ner' is missing"),
        (lambda r: {**r, "ner": {"name": "x"}}, "the field 'version' is missing"),
        (lambda r: {**r, "ner": "en_core_web_sm"}, "a field is malformed"),
        (lambda r: {**r, "splits": []}, "a field is malformed"),
        (lambda r: {**r, "splits": {"train": 3}}, "a field is malformed"),
        (lambda r: {**r, "splits": {"train": ["a.tar"]}}, "a field is malformed"),
        (lambda r: r["splits"]["train"][0].update(name=7), "a field is malformed"),
        (lambda r: r["splits"]["train"][0].update(samples="many"), "a field is malformed"),
        (lambda r: r["splits"]["train"][0].pop("bytes") and None, "the field 'bytes' is missing"),
    ],
)
def test_a_malformed_field(folder, edit, expected):
    change(folder, edit)
    assert expected in message(folder)


@pytest.mark.parametrize("name", ["../other/train-000000.tar", "/etc/passwd", "sub/a.tar"])
def test_a_shard_that_leads_out_of_its_folder(folder, name):
    change(folder, lambda r: r["splits"]["train"][0].update(name=name))
    assert f"shard name {name!r} leads out of its folder; refused" in message(folder)


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_shard_name_that_is_a_folder(folder, name):
    change(folder, lambda r: r["splits"]["train"][0].update(name=name))
    message(folder)


def test_a_missing_shard(folder):
    (folder / "train-000001.tar").unlink()
    assert "train-000001.tar: " in message(folder)
    assert "nothing found; make the shards again" in message(folder)


def test_a_truncated_shard(folder):
    size = (folder / "test-000000.tar").stat().st_size
    os.truncate(folder / "test-000000.tar", 700)
    assert f"test-000000.tar: {size} bytes expected, 700 bytes found" in message(folder)


@pytest.mark.parametrize("name", ["/tmp/evil", "../model", "a b", ""])
def test_a_ner_model_that_is_no_package_name_is_refused(folder, name):
    change(folder, lambda record: record["ner"].update(name=name))
    assert "is no package's name; refused" in message(folder)
