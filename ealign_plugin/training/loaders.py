"""DataLoaders of a run: one that mixes all training data, one for each split that is evaluated."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sized
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ealign_plugin.errors import UserError
from ealign_plugin.training.signals import outlive_signals

PREFETCHED = 2
"""Batches that each worker reads ahead."""


class RankSampler(Sampler[int]):
    """Every ``world_size``-th sample from ``rank`` on: together the ranks see each sample exactly once.

    ::

        samples of the split    0 1 2 3 4 5 6        torch's DistributedSampler would pad rank 1
        rank 0 of 2             0   2   4   6        with a sample that rank 0 has
        rank 1 of 2               1   3   5
    """

    def __init__(self, dataset: Sized, rank: int, world_size: int) -> None:
        self.indexes = range(rank, len(dataset), world_size)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indexes)

    def __len__(self) -> int:
        return len(self.indexes)


def training_loader(
    dataset: Dataset[Any], *, batch_size: int, workers: int, pin_memory: bool = False
) -> DataLoader[Any]:
    """A loader of a stream of training examples; its workers stay, and outlive a scheduler's signals.

    Args:
        dataset: Of examples; an endless stream.
        batch_size: Examples of a batch.
        workers: Worker processes; 0: the main process reads.
        pin_memory: For a faster way to a GPU.
    """
    return DataLoader(
        dataset,
        batch_size=batch_size,
        num_workers=workers,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        prefetch_factor=PREFETCHED if workers else None,
        worker_init_fn=outlive_signals,
    )


def evaluation_loader(
    dataset: Dataset[Any],
    *,
    batch_size: int,
    workers: int,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
) -> DataLoader[Any]:
    """A loader of this process's share of a split, each sample once; it can be iterated again and again.

    Args:
        dataset: With a length; its ``collater`` makes batches where it has one.
        batch_size: Samples of a batch; the last one may be smaller.
        workers: Worker processes; 0: the main process reads.
        rank: This process.
        world_size: So many processes share the split.
        pin_memory: For a faster way to a GPU.
    """
    return DataLoader(
        dataset,
        batch_size=batch_size,
        num_workers=workers,
        pin_memory=pin_memory,
        collate_fn=getattr(dataset, "collater", None),
        sampler=RankSampler(cast(Sized, dataset), rank, world_size),
    )


def evaluation_datasets(
    datasets: Mapping[str, Mapping[str, Dataset[Any]]], evaluated: Collection[str]
) -> dict[str, Dataset[Any]]:
    """The data set of each split but the training's.

    Args:
        datasets: Name → split → data set.
        evaluated: Splits that the run validates on or tests; each must be of one data set.

    Raises:
        UserError: several data sets have one of them.
    """
    of_split: dict[str, Dataset[Any]] = {}
    for split in sorted({split for splits in datasets.values() for split in splits} - {"train"}):
        names = [name for name, splits in datasets.items() if split in splits]
        if len(names) > 1 and split in evaluated:
            raise UserError(
                f"datasets: found {', '.join(names)} for {split!r}, one data set expected; leave the "
                f"split out of the others by datasets.<name>.splits ({names[-1]}: splits: [train])"
            )
        of_split[split] = datasets[names[0]][split]
    return of_split


def count_tokens_of_contexts(streams: Mapping[str, Any], counter: Callable[[str], int] | None) -> None:
    """Give training streams the model's way of counting, for contexts of so many tokens.

    To be called before their loaders start, whose workers are copies of this process.

    Args:
        streams: Name → data set; those without ``count_tokens_with`` are left alone.
        counter: Text → its number of tokens; None: the model cannot count.

    Raises:
        UserError: a stream needs what the model cannot.
    """
    for name, stream in streams.items():
        if hasattr(stream, "count_tokens_with"):
            if counter is None:
                raise UserError(
                    f"run.context_tokens: set, but the model cannot count tokens for datasets.{name}; "
                    "set run.context_words instead"
                )
            stream.count_tokens_with(counter)


def to_device(values: Any, device: torch.device) -> Any:
    """The same dicts and lists with their tensors on the device; other values stay."""
    if isinstance(values, Tensor):
        return values.to(device, non_blocking=True)
    if isinstance(values, dict):
        return {name: to_device(value, device) for name, value in values.items()}
    if isinstance(values, list):
        return [to_device(value, device) for value in values]
    return values
