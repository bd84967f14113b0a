"""DataLoaders of a run."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import Dataset, IterableDataset

from ealign_plugin.errors import UserError
from ealign_plugin.training.loaders import (
    RankSampler,
    count_tokens_of_contexts,
    evaluation_datasets,
    evaluation_loader,
    to_device,
    training_loader,
)


@pytest.mark.parametrize(("samples", "ranks"), [(10, 3), (2, 4), (0, 2), (7, 1)])
def test_ranks_share_a_split_without_padding(samples, ranks):
    parts = [list(RankSampler(range(samples), rank, ranks)) for rank in range(ranks)]
    assert sorted(sum(parts, [])) == list(range(samples))


class Squares(Dataset):
    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        return index**2

    def collater(self, samples: list[int]) -> str:
        return " ".join(map(str, samples))


def test_a_split_can_be_read_again_and_again_in_batches_of_the_data_sets_making():
    loader = evaluation_loader(Squares(5), batch_size=2, workers=0, rank=0, world_size=1)
    assert [list(loader) for _ in range(2)] == [["0 1", "4 9", "16"]] * 2
    second = evaluation_loader(Squares(5), batch_size=2, workers=0, rank=1, world_size=2)
    assert list(second) == ["1 9"]


class Count(IterableDataset):
    def __iter__(self):
        return iter({"x": torch.tensor(float(number))} for number in range(100))


@pytest.mark.parametrize("workers", [0, 1])
def test_examples_become_batches(workers):
    loader = training_loader(Count(), batch_size=3, workers=workers)
    assert next(iter(loader))["x"].tolist() == [0.0, 1.0, 2.0]


def test_of_an_evaluated_split_there_is_one_data_set():
    one, two = Squares(1), Squares(2)
    datasets = {"one": {"train": one, "val": one}, "two": {"train": two, "val": two, "test": two}}
    assert evaluation_datasets(datasets, ["test"]) == {"test": two, "val": one}
    with pytest.raises(UserError, match="found one, two for 'val', one data set expected"):
        evaluation_datasets(datasets, ["val", "test"])


def test_streams_count_tokens_as_the_model_does():
    class Stream:
        counter = None

        def count_tokens_with(self, counter):
            self.counter = counter

    stream = Stream()
    count_tokens_of_contexts({"ours": stream, "foreign": object()}, len)
    assert stream.counter("abc") == 3
    with pytest.raises(UserError, match="the model cannot count tokens for datasets.ours; set run.context_w"):
        count_tokens_of_contexts({"foreign": object(), "ours": stream}, None)


def test_tensors_go_to_the_device_and_other_values_stay():
    batch = {"image": torch.ones(2), "texts": ["a"], "more": {"x": [torch.zeros(1), 3]}}
    moved = to_device(batch, torch.device("meta"))
    assert moved["image"].is_meta and moved["more"]["x"][0].is_meta
    assert (moved["texts"], moved["more"]["x"][1]) == (["a"], 3)
