"""Work that all processes of the default group do together: none waits for one that failed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch.distributed as dist

from ealign_plugin.errors import UserError
from ealign_plugin.host.distributed import gathered

T = TypeVar("T")


def this_rank() -> int:
    return dist.get_rank() if world_size() > 1 else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def everywhere(work: Callable[[], T]) -> T:
    """Work on every process; where it fails on one, all of them raise, so that none waits for another."""
    try:
        result, failure = work(), None
    except Exception as error:
        failure = error
    messages = gathered(None if failure is None else str(failure) or type(failure).__name__)
    if failure is not None:
        raise failure
    for message in messages:
        if message is not None:
            raise UserError(message)
    return result


def from_first(work: Callable[[], T]) -> T:
    """The result of the first process, the only one that works."""
    result = everywhere(lambda: work() if this_rank() == 0 else None)
    return gathered(result)[0]
