"""A place in a stream of shards."""

from __future__ import annotations

from typing import NamedTuple


class StreamPosition(NamedTuple):
    """Where a consumer stands after a sample.

    Args:
        epoch: The epoch.
        first: First shard of the window, in this consumer's order.
        offset: Samples of the shuffled window that lie behind.
        read: Samples of the epoch that lie behind, those of others among them.
        seen: Samples that this consumer has decoded or skipped since the training began.
        bad: Those that it skipped.
    """

    epoch: int = 0
    first: int = 0
    offset: int = 0
    read: int = 0
    seen: int = 0
    bad: int = 0
