"""Problems are collected, so that all of them are reported at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ealign_plugin.errors import UserError


@contextmanager
def collected(problems: list[str]) -> Iterator[None]:
    """A UserError inside becomes one of the problems."""
    try:
        yield
    except UserError as error:
        problems.append(str(error))
