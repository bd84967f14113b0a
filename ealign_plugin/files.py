"""Files: paths and URLs, and writing that leaves a file whole or absent."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from upath import UPath

from ealign_plugin.errors import UserError

SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def as_path(location: str) -> UPath:
    """A path of this machine, made absolute, or an fsspec URL.

    Raises:
        UserError: fsspec cannot open URLs of this scheme here.
    """
    location = location.removeprefix("file://")
    try:
        if not SCHEME.match(location):
            return UPath(location).expanduser().absolute()
        path = UPath(location)
        path.fs  # noqa: B018  a missing package is noticed here, not at the first file
        return path
    except (ImportError, ValueError) as error:
        raise UserError(
            f"{location}: URLs of this kind cannot be opened ({error}); pip install what fsspec needs for "
            "them, or use a local path"
        ) from None


PART = ".part"
"""Ending of a file that is being written; one that stays behind belongs to a process that was killed."""


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A path to write to beside the target, which gets the target's name only when all went well.

    Raises:
        UserError: the folder cannot be written, or is full.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}{PART}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        mode = part.stat().st_mode  # as the user's umask has it; safetensors closes files to others
        yield part
        os.chmod(part, mode)
        os.replace(part, path)
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        with contextlib.suppress(OSError):  # it was renamed, or could not be made in the first place
            part.unlink()


def atomic_write(path: Path | UPath, content: bytes) -> None:
    """Write a file, here or at any fsspec URL, so that it appears whole or not at all."""
    if not isinstance(path, Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remote = path.with_name(f".{path.name}.{os.getpid()}{PART}")
        remote.write_bytes(content)
        remote.rename(path)
        return
    with atomic_path(path) as part, open(part, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def cannot_write(
    path: object, error: OSError, advice: str = "make room or choose another folder"
) -> UserError:
    """The one wording for a file or folder that cannot be written; to be raised by the caller.

    Args:
        path: What was to be written.
        error: What the operating system said.
        advice: What the user can do.

    Example:
        >>> print(cannot_write("run/log.txt", OSError(28, "No space left on device")))
        run/log.txt: it cannot be written (No space left on device); make room or choose another folder
    """
    return UserError(f"{path}: it cannot be written ({error.strerror or error}); {advice}")


MAX_JSON_BYTES = 64 << 20


def read_json(
    path: Path | UPath, *, advice: str = "make it again", max_bytes: int = MAX_JSON_BYTES
) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Args:
        path: A file here or at any fsspec URL.
        advice: What the user can do where the file is of no use; ends each message.
        max_bytes: Larger files are refused before they are read.

    Raises:
        UserError: the file is missing, cannot be read, is too large, is no JSON, or holds something else
            than an object.
    """
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise UserError(f"{path}: {size:,} bytes found, at most {max_bytes:,} expected; {advice}")
        record = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: it cannot be read ({error.strerror or error}); {advice}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: it is no JSON ({error}); {advice}") from None
    if not isinstance(record, dict):
        raise UserError(f"{path}: a JSON object expected, {type(record).__name__} found; {advice}")
    return record
