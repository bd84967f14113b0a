"""Annotated samples → WebDataset shards.

A shard holds ``<key>.jpg`` and ``<key>.json`` for each sample. Shards and ``index.json`` appear whole or
not at all: they are written under another name and renamed, the index last. The same samples give the
same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import webdataset as wds
from upath import UPath

from ealign_plugin.errors import UserError
from ealign_plugin.news import SCHEMA_VERSION, NewsSample
from ealign_plugin.shards.index import INDEX_NAME

PART = ".part"
"""Ending of a file that is being written; one that stays behind belongs to a process that was killed."""


def write_split(
    samples: Iterable[tuple[NewsSample, bytes]],
    folder: Path,
    split: str,
    *,
    samples_per_shard: int = 500,
) -> list[dict[str, Any]]:
    """Write the shards of one split and return their rows for the index.

    Args:
        samples: Samples with their photos as JPEG files' bytes.
        folder: Where the shards go; made where it is missing.
        split: Their split.
        samples_per_shard: Samples in each shard but the last.

    Raises:
        UserError: a key that WebDataset cannot hold, or that came before; or the folder cannot be written.
    """
    rows: list[dict[str, Any]] = []
    waiting: list[tuple[NewsSample, bytes]] = []
    keys: set[str] = set()
    for sample, jpeg in samples:
        if not sample.key or "." in sample.key or "/" in sample.key:
            raise UserError(f"sample {sample.key!r}: a key is not empty and holds no dot and no slash")
        if sample.key in keys:
            raise UserError(
                f"sample {sample.key!r}: the key occurs twice in {split!r}; keys name one sample each"
            )
        keys.add(sample.key)
        waiting.append((sample, jpeg))
        if len(waiting) == samples_per_shard:
            rows.append(write_shard(waiting, folder, f"{split}-{len(rows):06d}.tar"))
            waiting = []
    if waiting:
        rows.append(write_shard(waiting, folder, f"{split}-{len(rows):06d}.tar"))
    return rows


def write_index(
    folder: Path | UPath,
    splits: Mapping[str, list[dict[str, Any]]],
    *,
    source: str,
    ner: Mapping[str, str],
    options: Mapping[str, Any],
    report: Mapping[str, Any] | None = None,
) -> None:
    """Write ``index.json``, the last file of a folder of shards: with it the folder is complete.

    Args:
        folder: The folder.
        splits: Rows of the shards of each split, as `write_shard` returns them.
        source: Name of the data set.
        ner: Name and version of the model that found the entities.
        options: What the bytes depend on.
        report: What else is worth knowing: what was skipped and why.
    """
    record = {
        "schema": SCHEMA_VERSION,
        "source": source,
        "ner": dict(ner),
        "options": dict(options),
        **(report or {}),
        "splits": dict(splits),
    }
    write_whole(folder / INDEX_NAME, (json.dumps(record, indent=1) + "\n").encode())


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
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
        raise UserError(
            f"{path}: it cannot be written ({error.strerror}); make room or choose another folder"
        ) from None
    finally:
        with contextlib.suppress(OSError):  # it was renamed, or could not be made in the first place
            part.unlink()


def write_whole(path: Path | UPath, content: bytes) -> None:
    """Write a file, here or at any fsspec URL, so that it appears whole or not at all."""
    if not isinstance(path, Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remote = path.with_name(f".{path.name}.{os.getpid()}{PART}")
        remote.write_bytes(content)
        remote.rename(path)
        return
    with whole(path) as part, open(part, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def shard_bytes(samples: Iterable[tuple[NewsSample, bytes]]) -> bytes:
    """The tar file of some samples with their photos; equal samples give equal bytes."""
    buffer = io.BytesIO()
    # Times and owners would make equal samples differ in bytes.
    with wds.TarWriter(buffer, encoder=False, mtime=0, user="", group="") as tar:
        for sample, jpeg in samples:
            record = json.dumps(sample.to_json(), ensure_ascii=False, separators=(",", ":"))
            tar.write({"__key__": sample.key, "jpg": jpeg, "json": record.encode()})
    return buffer.getvalue()


def write_shard(
    samples: Sequence[tuple[NewsSample, bytes]], folder: Path | UPath, name: str
) -> dict[str, Any]:
    """Write a shard and return its row of the index."""
    content = shard_bytes(samples)
    write_whole(folder / name, content)
    digest = hashlib.sha256(content).hexdigest()
    return {"name": name, "samples": len(samples), "bytes": len(content), "sha256": digest}
