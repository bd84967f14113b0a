"""How the commands end: one line for what a user caused, a traceback for what we caused."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from ealign_plugin.errors import UserError

BAD_INPUT = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells count


def run_and_report(action: Callable[[], object]) -> int:
    """Run ``action`` and return the process's exit code: 0, 2 after a UserError, 130 after Ctrl-C."""
    try:
        action()
    except UserError as error:
        print(f"error: {message_of(error)}{rank_note()}", file=sys.stderr, flush=True)
        return BAD_INPUT
    except KeyboardInterrupt:
        print(f"interrupted{rank_note()}", file=sys.stderr, flush=True)
        return INTERRUPTED
    return 0


def message_of(error: UserError) -> str:
    """The message alone; torch wraps that of a data worker into the text of the worker's traceback."""
    text = str(error)
    return text.rpartition("UserError: ")[2].strip() if "Original Traceback" in text else text


def rank_note() -> str:
    """' (rank 3)' in the processes that torchrun starts beside the first, else ''."""
    rank = os.environ.get("RANK", "0")
    return "" if rank == "0" else f" (rank {rank})"
