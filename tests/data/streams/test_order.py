"""The order of the samples: every epoch reads each once, whoever of several consumers reads it."""

from __future__ import annotations

import itertools
import random
from types import SimpleNamespace

import pytest
import torch

from ealign_plugin.data.shards.read import read_shard
from ealign_plugin.data.streams import order
from ealign_plugin.data.streams.order import ShuffledSamples
from ealign_plugin.errors import UserError
from tests.data.streams.factories import take, training


def epochs(shards, count: int, **options) -> list[list[str]]:
    """Keys that one consumer reads, epoch by epoch."""
    read: list[list[str]] = []
    for raw in ShuffledSamples(shards, **options):
        if raw.position.epoch == count:
            return read
        if raw.position.epoch == len(read):
            read.append([])
        read[raw.position.epoch].append(raw.key)


def be_worker(monkeypatch, number: int, of: int) -> None:
    """From here on this process is one of DataLoader's workers."""
    worker = SimpleNamespace(id=number, num_workers=of)
    monkeypatch.setattr(order, "get_worker_info", lambda: worker)


def test_every_epoch_reads_every_sample_once_in_another_order(index):
    first, second, third = epochs(index.shards["train"], 3, seed=1)
    assert len(first) == 24 and set(first) == set(second) == set(third)
    assert len({tuple(first), tuple(second), tuple(third)}) == 3
    assert all(len(set(keys)) == len(keys) for keys in (first, second, third))


def test_the_order_is_a_pure_function_of_the_seed(index):
    random.seed(1)
    once = epochs(index.shards["train"], 2, seed=5)
    random.seed(2)
    assert epochs(index.shards["train"], 2, seed=5) == once
    assert epochs(index.shards["train"], 2, seed=6) != once


def test_the_global_random_state_is_left_alone(index):
    state = random.getstate(), torch.get_rng_state().tolist()
    take(50, training(index.shards["train"]))
    assert (random.getstate(), torch.get_rng_state().tolist()) == state


def test_a_window_of_shards_is_shuffled_together(index):
    shard_of = {raw.key: s.path.name for s in index.shards["train"] for raw in read_shard(s)}

    def shards_in_turn(window: int) -> int:
        (keys,) = epochs(index.shards["train"], 1, seed=3, window=window)
        return len(list(itertools.groupby(shard_of[key] for key in keys)))

    assert shards_in_turn(window=1) == 6  # one after the other
    assert shards_in_turn(window=6) > 12


@pytest.mark.parametrize(("ranks", "workers"), [(1, 1), (1, 2), (2, 1), (2, 3), (1, 4), (4, 2), (1, 9)])
@pytest.mark.parametrize("window", [1, 4])
def test_consumers_are_disjoint_and_together_complete(index, monkeypatch, ranks, workers, window):
    """6 shards: up to 6 consumers have shards of their own, more take turns."""
    read = []
    for rank, worker in itertools.product(range(ranks), range(workers)):
        be_worker(monkeypatch, worker, workers)
        (keys,) = epochs(index.shards["train"], 1, seed=2, window=window, rank=rank, world_size=ranks)
        assert keys
        read += keys
    assert len(read) == 24 and len(set(read)) == 24


def test_no_consumer_starves_where_a_window_holds_fewer_samples_than_there_are_consumers(
    shards_of, tmp_path, monkeypatch
):
    few = shards_of(tmp_path, {"train": 3}, samples_per_shard=2).shards["train"]
    for worker in range(5):
        be_worker(monkeypatch, worker, 5)
        assert take(3, ShuffledSamples(few, seed=1, window=1))


def test_too_few_samples_are_an_error_and_no_endless_wait(shards_of, tmp_path, monkeypatch):
    be_worker(monkeypatch, 3, 4)
    shards = shards_of(tmp_path, {"train": 1}).shards["train"]
    with pytest.raises(UserError, match="2 samples in 1 shards are too few for 4 readers"):
        take(1, ShuffledSamples(shards, seed=1))
    with pytest.raises(UserError, match="0 samples in 0 shards are too few"):
        take(1, ShuffledSamples((), seed=1))
