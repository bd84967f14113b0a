"""What is used of webdataset's tar functions, which are not documented: those of webdataset 1.0 (also 0.2).

A shard is a tar file whose members ``<key>.jpg`` and ``<key>.json`` stand one behind the other.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from typing import BinaryIO

import webdataset as wds

# What it raises on a broken tar file.
ERRORS = (OSError, EOFError, ValueError, tarfile.TarError)


def split_name(name: str) -> tuple[str, str]:
    """A member's name → the key of its sample, and its suffix in small letters; both empty if it has none.

    >>> split_name("a/oslo.front.JPG")
    ('a/oslo', 'front.jpg')
    """
    key, suffix = wds.tariterators.base_plus_ext(name)
    return (key, suffix.lower()) if key else ("", "")


def read_groups(
    file: BinaryIO, name: str, select: Callable[[str], bool]
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Key and suffix → bytes of the samples of a tar file, in order.

    Args:
        file: The tar file.
        name: Its name, for messages.
        select: Is this member read?

    Raises:
        OSError, EOFError, ValueError, tarfile.TarError: it is broken (`cause_of` says how).
    """
    files = wds.tariterators.tar_file_expander([{"url": name, "stream": file}], select_files=select)
    for group in wds.tariterators.group_by_keys(files):
        yield (
            group["__key__"],
            {suffix: value for suffix, value in group.items() if not suffix.startswith("__")},
        )


def cause_of(error: Exception) -> str:
    """What is wrong with a tar file, without the objects and addresses that webdataset adds."""
    return str(error) if isinstance(error, OSError) else str(error.args[0]).partition(" @ ")[0]
