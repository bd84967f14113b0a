"""Batches of one or several data sets, and what must stay the same where they go on after a restart."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import IterableDataset

from ealign_plugin.data.shards.index import Shard
from ealign_plugin.data.streams.batches import TrainingBatches, check_weights
from ealign_plugin.errors import UserError
from tests.data.streams.resuming import MIX, Loader, batches_of, plain, take, training

# --------------------------------------------------------------------------------- cheap, and how cheap


def test_the_state_is_small_wherever_the_stream_stands(index):
    """Under 200 bytes for each worker, without what only names the data and the recipe."""
    batches = batches_of(index.shards["train"], 3)
    sizes = []
    for _ in range(300):
        next(batches)
        (source,) = json.loads(batches.state())["sources"].values()
        sizes.append(max(len(json.dumps(told)) for told in source["consumers"].values()))
    assert max(sizes) < 200
    assert len(batches.state()) < 3000


def test_the_states_are_taken_out_of_the_batch(index):
    (batch,) = take(1, batches_of(index.shards["train"], 0))
    assert sorted(batch) == ["image", "instruction", "key", "question", "target", "task"]
    (raw,) = take(1, Loader(training(index.shards["train"]), 8, 0))
    assert raw["stream_state"][:7] == 7 * [""] and raw["stream_state"][7]


# ------------------------------------------------------------------------------------ what must not change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 16}, "run.batch_size_train: 8 when the checkpoint was saved, 16 now"),
        ({"seed": 2}, "datasets.news.seed: 1 when the checkpoint was saved, 2 now"),
        ({"batch_size": 4}, "datasets.news.batch_size: 8 when .*, 4 now"),
        ({"window": 3}, "datasets.news.shuffle_shards: 2 when .*, 3 now"),
        ({"phases": ()}, r"datasets.news.phases: \[\{.*\}\] when .*, \[\] now"),
        ({"context_words": 21}, "run.context_words: 20 when .*, 21 now"),
        ({"usual": "none"}, "datasets.news: .*templates when .*, run.usual_context now"),
        (
            {"recipe": MIX.changed({"tasks": {"sentence": 2, "caption": 1, "entity": 0.3}})},
            "datasets.news.recipe.tasks: caption, sentence, entity when .*, sentence, caption, entity now",
        ),
    ],
)
def test_a_stream_that_is_read_in_another_way_is_refused_by_the_key(index, change, message):
    first = batches_of(index.shards["train"], 2)
    take(3, first)
    second = batches_of(index.shards["train"], **{"workers": 2, **change})
    with pytest.raises(UserError, match=message) as error:
        second.resume([first.state()])
    assert "set it back, or start anew from the weights" in str(error.value)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    before=st.tuples(st.integers(1, 3), st.integers(0, 2)),
    after=st.tuples(st.integers(1, 3), st.integers(0, 2)),
    read=st.integers(0, 12),
)
def test_with_other_processes_or_workers_all_go_on_with_the_next_epoch(index, before, after, read):
    shards = index.shards["train"]

    def each(processes, workers):
        return [
            TrainingBatches(
                {"news": Loader(training(shards, rank=rank, world_size=processes), 8, workers)},
                world_size=processes,
            )
            for rank in range(processes)
        ]

    first = each(*before)
    for batches in first:
        take(read, batches)
    saved = [batches.state() for batches in first]
    second = each(*after)
    for rank, batches in enumerate(second):
        batches.resume(saved, rank)
    if (before[0], before[1] or 1) == (after[0], after[1] or 1):
        expected = [plain(next(batches)) for batches in first]
        assert [plain(next(batches)) for batches in second] == expected
        return
    for batches in second:
        take(max(1, after[1]), batches)
    epochs = [
        [json.loads(text)[0][0] for text, _ in json.loads(b.state())["sources"]["news"]["consumers"].values()]
        for b in second
    ]
    told = [
        json.loads(text)[0][0]
        for state in saved
        for text, _ in json.loads(state)["sources"]["news"]["consumers"].values()
        if text
    ]
    assert min(map(min, epochs)) >= max(told, default=-1) + 1
    delivered = json.loads(second[0].state())["sources"]["news"]["delivered"]
    assert delivered == read + max(1, after[1])


def test_other_shards_and_other_data_sets_are_refused(index):
    shards = index.shards["train"]
    saved = batches_of(shards, 2).state()
    with pytest.raises(UserError, match="datasets.news.shards: 24 samples in 6 shards, .*, 20 samples in 5"):
        batches_of(shards[:5], 2).resume([saved])
    with pytest.raises(UserError, match="datasets: news when the checkpoint was saved, others now"):
        TrainingBatches({"others": Loader(training(shards), 8, 2)}).resume([saved])


def test_shards_may_move_to_another_folder(index, tmp_path):
    shards = index.shards["train"]
    moved = [Shard(tmp_path / shard.path.name, shard.samples) for shard in shards]
    for old, new in zip(shards, moved, strict=True):
        new.path.write_bytes(old.path.read_bytes())
    first = batches_of(shards, 0)
    take(3, first)
    second = batches_of(moved, 0)
    second.resume([first.state()])
    assert plain(next(second)) == plain(next(first))


# ------------------------------------------------------------------------------------- several data sets


class Letters(IterableDataset):
    """A foreign data set: endless, and it cannot tell its place."""

    def __iter__(self) -> Iterator[dict]:
        return ({"key": f"letter{number}"} for number in itertools.count())


def mixed(index, seed: int = 4, weights=None, workers: int = 0) -> TrainingBatches:
    sets = {"one": training(index.shards["train"]), "two": training(index.shards["test"]), "far": Letters()}
    loaders = {name: Loader(part, 8, workers if name != "far" else 0) for name, part in sets.items()}
    return TrainingBatches(loaders, weights=weights, seed=seed)


def source_of(batch: dict) -> str:
    names = {key[:5] for key in batch["key"]}
    assert len(names) == 1  # every batch is of one data set
    return {"train": "one", "test0": "two", "lette": "far"}[names.pop()]


def test_data_sets_are_drawn_by_weight(index):
    counts = Counter(map(source_of, take(400, mixed(index, weights={"one": 3, "two": 1, "far": 0}))))
    assert counts["one"] / 400 == pytest.approx(0.75, abs=0.05) and set(counts) == {"one", "two"}
    counts = Counter(map(source_of, take(300, mixed(index))))
    assert min(counts.values()) > 80  # without weights all alike


def test_the_draw_depends_on_seed_and_batch_alone(index):
    def drawn(**options) -> list[str]:
        return [source_of(batch) for batch in take(40, mixed(index, **options))]

    assert drawn() == drawn() == drawn(workers=2)
    assert drawn() != drawn(seed=5)


@pytest.mark.parametrize("stop", [1, 5, 23])
def test_all_data_sets_go_on_where_they_stood(index, stop):
    def texts(batches) -> list:
        return [tuple(batch["key"]) for batch in take(20, batches)]

    whole = mixed(index, weights={"one": 2, "two": 1, "far": 1}, workers=2)
    take(stop, whole)
    resumed = mixed(index, weights={"one": 2, "two": 1, "far": 1}, workers=2)
    resumed.resume([whole.state()])
    assert texts(resumed) == texts(whole)


def test_other_weights_are_refused_at_a_restart(index):
    saved = mixed(index, weights={"one": 2, "two": 1, "far": 1}).state()
    with pytest.raises(UserError, match=r"run.train_dataset_ratios.one: 2.0 when .*, 1.0 now"):
        mixed(index).resume([saved])
    with pytest.raises(UserError, match=r"run.seed: 4 when .*, 5 now"):
        mixed(index, weights={"one": 2, "two": 1, "far": 1}, seed=5).resume([saved])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"a": 1, "b": 1, "c": 1}, "'c' has no training split; expected a number for each of a, b"),
        ({"a": 1}, "ratios.b: a number of 0 or more was expected, found None"),
        ({"a": 1, "b": -1}, "ratios.b: a number of 0 or more was expected, found -1"),
        ({"a": 1, "b": "2"}, "found '2'"),
        ({"a": 1, "b": float("nan")}, "found nan"),
        ({"a": 1, "b": True}, "found True"),
        ({"a": 0, "b": 0}, "a number above 0 was expected"),
    ],
)
def test_weights_that_fit_no_data_sets_are_refused(weights, message):
    with pytest.raises(UserError, match=message):
        check_weights({"a": None, "b": None}, weights)
