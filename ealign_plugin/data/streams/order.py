"""The order in which training reads samples: a pure function of seed and epoch."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

from torch.utils.data import IterableDataset, get_worker_info

from ealign_plugin.data.shards.index import Shard
from ealign_plugin.data.shards.position import StreamPosition
from ealign_plugin.data.shards.read import OtherMembers, RawSample, read_shard
from ealign_plugin.errors import UserError


class ShuffledSamples(IterableDataset):
    """Endless raw samples of this consumer, shuffled anew each epoch (see the module's drawing).

    Args:
        shards: The shards of the split.
        seed: Seed of the order.
        window: Shards that are held in memory and shuffled together.
        rank: Number of this process.
        world_size: So many processes train.
    """

    def __init__(
        self, shards: Sequence[Shard], *, seed: int, window: int = 4, rank: int = 0, world_size: int = 1
    ) -> None:
        self.shards, self.seed, self.window = tuple(shards), seed, max(1, window)
        self.rank, self.world_size = rank, world_size
        self.others = OtherMembers()

    def __iter__(self) -> Iterator[RawSample]:
        return self.read(*this_worker())

    def read(self, worker: int, workers: int, after: StreamPosition | None = None) -> Iterator[RawSample]:
        """The samples of one of this rank's workers, those after a position; no earlier window is opened.

        Raises:
            UserError: a shard cannot be read, or there are fewer samples than consumers.
        """
        consumer, consumers = self.rank * workers + worker, self.world_size * workers
        divided = len(self.shards) >= consumers
        epoch, start, offset, read, *_ = after or StreamPosition()
        any_read = after is not None  # in this epoch
        while True:
            order = random.Random(f"{self.seed}/{epoch}").sample(self.shards, len(self.shards))
            mine = order[consumer::consumers] if divided else order
            for first in range(start, len(mine), self.window):
                held = [
                    raw
                    for shard in mine[first : first + self.window]
                    for raw in read_shard(shard, self.others)
                ]
                random.Random(f"{self.seed}/{epoch}/{first}").shuffle(held)
                for at in range(offset, len(held)):
                    read += 1
                    if divided or (read - 1) % consumers == consumer:
                        any_read = True
                        yield replace(held[at], position=StreamPosition(epoch, first, at + 1, read))
                offset = 0
            if not any_read:
                raise UserError(
                    f"{read} samples in {len(self.shards)} shards are too few for {consumers} readers "
                    "(processes × run.num_workers); give more samples or lower run.num_workers"
                )
            epoch, start, read, any_read = epoch + 1, 0, 0, False


def this_worker() -> tuple[int, int]:
    """Number of this DataLoader worker, and of how many; the main process is worker 0 of 1."""
    worker = get_worker_info()
    return (worker.id, worker.num_workers) if worker else (0, 1)
