"""Problems are collected, so that all of them are reported at once; doubts stop nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ealign_plugin.errors import UserError
from ealign_plugin.training.checkpoints.store import find_weights


@contextmanager
def collected(problems: list[str]) -> Iterator[None]:
    """A UserError inside becomes one of the problems, once, however many parts of the plan meet it."""
    try:
        yield
    except UserError as error:
        if str(error) not in problems:
            problems.append(str(error))


def doubts(task: Any, run: Mapping[str, Any]) -> list[str]:
    """What the task says of a config that can be run, a line each; as the runner logs it."""
    if not hasattr(task, "doubts") or (run["evaluate"] and not run["resume_ckpt_path"]):
        return []
    said: list[str] = task.doubts(find_weights(run["resume_ckpt_path"]) if run["evaluate"] else None)
    return said
