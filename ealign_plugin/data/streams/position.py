"""What a consumer of a stream needs to go on exactly."""

from __future__ import annotations

import json
from dataclasses import dataclass

from ealign_plugin.alignment.mixture import TASKS
from ealign_plugin.data.shards.position import StreamPosition


@dataclass(frozen=True, slots=True)
class ConsumerState:
    """What a consumer needs to go on: its place, its next batch and what it owes to later ones.

    Args:
        place: After the last sample that it used; None at the very beginning.
        batch: Number of its next batch; None at the very beginning.
        owed: Examples of each task that are owed to later batches (see `task_quota`).
        skip: Examples after that which were delivered, too: a loader's batch may end within the mixer's.
    """

    place: StreamPosition | None = None
    batch: int | None = None
    owed: tuple[float, ...] = (0.0,) * len(TASKS)
    skip: int = 0

    def to_text(self) -> str:
        """What stands under ``stream_state``."""
        return json.dumps([self.place, self.batch, self.owed], separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str, skip: int = 0) -> ConsumerState:
        """Read what `to_text` wrote; empty text is the very beginning."""
        if not text:
            return cls(skip=skip)
        place, batch, owed = json.loads(text)
        return cls(StreamPosition(*place), batch, tuple(owed), skip)
