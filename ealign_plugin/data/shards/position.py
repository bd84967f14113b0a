"""A position in a stream of shards."""

from __future__ import annotations

from typing import NamedTuple


class StreamPosition(NamedTuple):
    """Where a consumer of the stream stands after a sample; checkpoints store its values in this order.

    Args:
        epoch: The epoch.
        first_shard: First shard of the window, in this consumer's order.
        window_offset: Samples of the shuffled window that were passed.
        epoch_samples: Samples of the epoch that were passed, those of other consumers among them.
        decoded: Samples that this consumer has decoded or skipped since the training began.
        skipped: Those that it skipped.
    """

    epoch: int = 0
    first_shard: int = 0
    window_offset: int = 0
    epoch_samples: int = 0
    decoded: int = 0
    skipped: int = 0
