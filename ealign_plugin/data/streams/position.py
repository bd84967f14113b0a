"""What a consumer of a stream needs to go on exactly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from ealign_plugin.alignment.tasks import BUILT_IN_TASKS
from ealign_plugin.data.shards.position import StreamPosition


@dataclass(frozen=True, slots=True)
class ConsumerState:
    """What a consumer of a stream, one worker of one rank, needs to go on exactly.

    Args:
        position: After the last sample that it used; None at the very beginning.
        batch: Number of its next batch; None at the very beginning.
        carry_over: Task → examples that earlier batches could not hold (see `task_quota`).
        skip: Examples after that which were delivered, too: a loader's batch may end within the mixer's.
    """

    position: StreamPosition | None = None
    batch: int | None = None
    carry_over: Mapping[str, float] = field(default_factory=dict)
    skip: int = 0

    def to_text(self) -> str:
        """What stands under ``stream_state``: ``[position, batch, carry-over]``.

        The carry-over is a list for the three built-in tasks, as older checkpoints have it, and an object
        where there are others.
        """
        carry: list[float] | dict[str, float]
        if set(self.carry_over) <= set(BUILT_IN_TASKS):
            carry = [self.carry_over.get(task, 0.0) for task in BUILT_IN_TASKS]
        else:
            carry = dict(self.carry_over)
        return json.dumps([self.position, self.batch, carry], separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str, skip: int = 0) -> ConsumerState:
        """Read what `to_text` wrote; empty text is the very beginning."""
        if not text:
            return cls(skip=skip)
        position, batch, carry = json.loads(text)
        if isinstance(carry, list):
            carry = dict(zip(BUILT_IN_TASKS, carry, strict=True))
        return cls(StreamPosition(*position), batch, carry, skip)
