"""safetensors files: opening one, and what its header says without a tensor being read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from ealign_plugin.errors import UserError

Shapes = dict[str, tuple[int, ...]]
"""Name of each tensor → its shape."""


class Header(NamedTuple):
    """Names and shapes of a file's tensors, and its metadata."""

    shapes: Shapes
    metadata: dict[str, str]


def open_safetensors(path: Path) -> Any:
    """A file as ``safetensors.safe_open`` gives it, a context manager; tensors are read one at a time.

    Raises:
        UserError: it cannot be read, or is no such file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: it is no safetensors file ({error}); fetch it again") from None


def read_header(path: Path) -> Header:
    """See `Header`.

    Raises:
        UserError: see `open_safetensors`.
    """
    with open_safetensors(path) as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        return Header(shapes, dict(file.metadata() or {}))
