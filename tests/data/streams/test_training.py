"""The training stream: endless, reproducible, and never broken by a bad sample."""

from __future__ import annotations

import itertools
import logging
import os
import pickle
from collections import Counter

import pytest
from PIL import ImageFile
from torch.utils.data import DataLoader

from ealign_plugin.alignment.own_selections import half_of, write_selections
from ealign_plugin.alignment.prompts import Wording
from ealign_plugin.alignment.selection import Selection
from ealign_plugin.data.shards.index import Shard
from ealign_plugin.data.shards.read import read_shard
from ealign_plugin.data.streams.evaluation import EvaluationSamples
from ealign_plugin.data.streams.order import ShuffledSamples
from ealign_plugin.data.streams.training import Decoder
from ealign_plugin.errors import UserError
from tests.data.streams.factories import MIX, evaluation_of, index_of, take, text_of, to_tensor, training
from tests.factories import members

# -------------------------------------------------------------------------------------------- mix of tasks


def test_examples_of_one_visit_share_key_and_image(index):
    visits = itertools.groupby(take(80, training(index.shards["train"])), key=lambda item: item["key"])
    together = [list(items) for _, items in visits]
    assert max(map(len, together)) >= 5
    for items in together:
        assert all(item["image"] is items[0]["image"] for item in items)


def test_equal_seeds_give_equal_streams_and_other_seeds_other_ones(index):
    shards = index.shards["train"]
    pipeline = training(shards)
    once = text_of(take(300, pipeline))
    assert text_of(take(300, pipeline)) == once  # a second iterator of the same stream starts anew
    assert text_of(take(300, training(shards))) == once
    assert text_of(take(300, training(shards, seed=2))) != once


def test_two_streams_of_halves_read_each_photo_in_one_of_them(index):
    shards = index.shards["train"]
    keys = [{item["key"] for item in take(400, training(shards, half=half))} for half in (0, 1)]
    assert not keys[0] & keys[1]
    assert len(keys[0] | keys[1]) == 24
    articles = [{key.partition("_")[0] for key in half} for half in keys]
    assert not articles[0] & articles[1]


def test_a_half_without_any_article_ends_in_an_error(index):
    raws = itertools.cycle([next(iter(read_shard(index.shards["train"][0])))])
    (_, sample, _), *_ = take(1, Decoder(to_tensor)(raws))
    with pytest.raises(UserError, match="half: . found, and 10,000 samples in a row are of the other half"):
        next(iter(Decoder(to_tensor, half=1 - half_of(sample))(raws)))


def test_a_stream_draws_from_a_models_own_selections(index, tmp_path):
    shards = index.shards["train"]
    samples = [
        sample for _, sample, _ in Decoder(to_tensor)(raw for one in shards for raw in read_shard(one))
    ]
    write_selections(tmp_path / "own.jsonl", "", [(one, Selection((2,), scores=(0.5,))) for one in samples])
    recipe = MIX.changed({"selections": str(tmp_path / "own.jsonl"), "own_share": 1})
    captions = [item for item in take(80, training(shards, recipe=recipe)) if item["task"] == "caption"]
    assert captions and all(" It rained on " in f" {item['instruction']}" for item in captions)
    phases = [{"until": 2, "own_share": 0}]
    first, *_, last = take(80, training(shards, recipe=recipe, phases=phases))
    assert "It rained" not in first["instruction"]
    with pytest.raises(UserError, match=r"none.jsonl: it cannot be read .*write it again by `ealign select`"):
        training(shards, recipe=MIX.changed({"selections": str(tmp_path / "none.jsonl")}))


def test_the_stream_never_ends_and_says_other_things_in_the_next_epoch(index):
    items = take(2000, training(index.shards["train"]))
    seen = Counter(item["key"] for item in items)
    assert len(seen) == 24 and min(seen.values()) > 20
    contexts = {item["instruction"] for item in items if item["task"] == "caption"}
    assert len(contexts) > 24


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_of_a_data_loader_hold_the_mix_and_one_worker_changes_nothing(index, workers):
    def load(workers: int) -> list[list[tuple[str, ...]]]:
        loader = DataLoader(training(index.shards["train"]), 8, num_workers=workers, collate_fn=text_of)
        return take(12, loader)

    batches = load(workers)
    assert [Counter(task for _, task, *_ in batch)["sentence"] for batch in batches] == 12 * [4]
    assert (batches == load(0)) == (workers == 1)
    assert load(workers) == batches


# --------------------------------------------------------------------------------- broken and hostile shards


BROKEN = {
    "no picture": ({"jpg": b"no picture"}, "it is no picture in a known format"),
    "empty picture": ({"jpg": b""}, "there is no photo (.jpg) beside its record"),
    "no photo": ({"jpg": None}, "there is no photo (.jpg) beside its record"),
    "no record": ({"json": None}, "there is no record (.json) beside its photo"),
    "no JSON": ({"json": b"{"}, "its JSON is broken"),
    "no UTF-8": ({"json": b"\xff\xfe\x00"}, "its JSON is broken"),
    "deep JSON": ({"json": b"[" * 100_000}, "its JSON is broken"),
    "a list": ({"json": b"[]"}, "a JSON object was expected"),
    "another schema": ({"json": b'{"schema": 0, "key": "k"}'}, "schema version 0 found, 1 expected"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_bad_sample_is_skipped_counted_and_logged(tar_of, news, photo, caplog, what):
    changes, message = BROKEN[what]
    shard = tar_of(
        [*members(news(0), photo(0)), *members(news(1), photo(1), **changes), *members(news(2), photo(2))]
    )
    decoder = Decoder(to_tensor)
    with caplog.at_level(logging.WARNING):
        good = list(decoder(read_shard(shard)))
    assert [raw.key for raw, _, _ in good] == ["train000_0", "train002_0"]
    assert (decoder.seen, decoder.skipped.total()) == (3, 1)
    (record,) = caplog.records
    assert "1 of 2 so far" in record.getMessage() and message in record.getMessage()


def test_a_photo_that_is_cut_off_is_skipped(tar_of, news, photo, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # what importing LAVIS does
    decoder = Decoder(to_tensor)
    assert list(decoder(read_shard(tar_of(members(news(), photo(0)[:900]))))) == []
    assert decoder.skipped == {"the picture cannot be read": 1}


def test_too_many_bad_samples_stop_the_run_with_a_table_of_causes(tar_of, news, photo):
    good = [member for number in range(40) for member in members(news(number), photo(0))]
    bad = [m for n in range(100, 112) for m in members(news(n), photo(0)[: 900 + n])]
    bad += [m for n in range(200, 212) for m in members(news(n), photo(0), json=b"{" * n)]
    with pytest.raises(UserError) as error:
        take(10_000, training([tar_of(good + bad)]))
    message = str(error.value)
    assert "samples were bad, at most 5% may be: " in message and "raise max_skipped" in message
    counts = message.partition("may be: ")[2].split("; ")[:-1]
    assert sorted(count.split(" × ")[1] for count in counts) == [
        "its JSON is broken",
        "the picture cannot be read",
    ]
    assert sum(int(count.split(" × ")[0]) for count in counts) == 21
    assert "\n" not in message


def test_a_few_bad_samples_do_not_flood_the_log(tar_of, news, photo, caplog):
    shard = tar_of([m for n in range(150) for m in members(news(n), b"broken")])
    list(Decoder(to_tensor, max_skipped=1.0)(read_shard(shard)))
    assert len(caplog.records) == 11


def test_the_error_reaches_the_main_process(tar_of, news, photo):
    shard = tar_of([m for n in range(30) for m in members(news(n), b"broken")])
    message = ""
    try:
        take(1, DataLoader(training([shard]), 8, num_workers=1, collate_fn=text_of))
    except UserError as error:
        message = str(error.with_traceback(None))  # a traceback that is kept keeps the worker, too
    assert "21 of 21 samples were bad" in message


class Trap:
    """Whoever unpickles this makes a folder."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_nothing_is_ever_unpickled(tar_of, news, photo, tmp_path):
    trap = tmp_path / "trap"
    poison = pickle.dumps(Trap(trap))
    extra = dict.fromkeys(("pickle", "pyd", "pkl", "pth", "pt", "npy", "npz", "cls", "mp"), poison)
    shard = tar_of([*members(news(0), photo(0), **extra), *members(news(1), photo(1), json=poison)])
    good = Shard(tar_of(members(news(0), photo(0), **extra)).path, 1)
    assert {item["key"] for item in take(20, training([shard], max_skipped=1.0))} == {"train000_0"}
    assert len(EvaluationSamples(index_of(good), "test", image_processor=to_tensor, wording=Wording())) == 1
    assert "its JSON is broken" in evaluation_of(shard)[1]["error"]
    assert not trap.exists()
    pickle.loads(poison)
    assert trap.exists()  # the trap works


def test_a_stream_remembers_what_it_has_logged_and_another_one_does_not(tar_of, news, photo, caplog):
    shards = [tar_of([m for n in range(9) for m in members(news(n), photo(0), txt=b"x")])]
    for count in (1, 2):
        take(40, ShuffledSamples(shards, seed=1))
        assert len(caplog.records) == count
