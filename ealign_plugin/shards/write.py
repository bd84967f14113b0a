"""Annotated samples → WebDataset shards.

A shard holds ``<key>.jpg`` and ``<key>.json`` for each sample. Shards and ``index.json`` appear whole or
not at all: they are written under another name and renamed, the index last. The same samples give the
same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import webdataset as wds

from ealign_plugin.errors import UserError
from ealign_plugin.news import SCHEMA_VERSION, NewsSample
from ealign_plugin.shards.index import INDEX_NAME


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
            rows.append(_write_shard(waiting, folder, f"{split}-{len(rows):06d}.tar"))
            waiting = []
    if waiting:
        rows.append(_write_shard(waiting, folder, f"{split}-{len(rows):06d}.tar"))
    return rows


def write_index(
    folder: Path,
    splits: Mapping[str, list[dict[str, Any]]],
    *,
    source: str,
    ner: Mapping[str, str],
    options: Mapping[str, Any],
) -> None:
    """Write ``index.json``, the last file of a folder of shards: with it the folder is complete."""
    record = {
        "schema": SCHEMA_VERSION,
        "source": source,
        "ner": dict(ner),
        "options": dict(options),
        "splits": {split: rows for split, rows in splits.items()},
    }
    write_whole(folder / INDEX_NAME, (json.dumps(record, indent=1) + "\n").encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it appears whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise UserError(f"{path}: it cannot be written ({error.strerror}); choose another folder") from None
    finally:
        _remove(part)


def _remove(part: Path) -> None:
    with contextlib.suppress(OSError):  # it was renamed, or could not be made in the first place
        part.unlink()


def _write_shard(samples: list[tuple[NewsSample, bytes]], folder: Path, name: str) -> dict[str, Any]:
    part = folder / f".{name}.{os.getpid()}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Times and owners would make equal samples differ in bytes.
        with open(part, "wb") as file, wds.TarWriter(file, encoder=False, mtime=0, user="", group="") as tar:
            for sample, jpeg in samples:
                record = json.dumps(sample.to_json(), ensure_ascii=False, separators=(",", ":"))
                tar.write({"__key__": sample.key, "jpg": jpeg, "json": record.encode()})
        row = {
            "name": name,
            "samples": len(samples),
            "bytes": part.stat().st_size,
            "sha256": hashlib.sha256(part.read_bytes()).hexdigest(),
        }
        os.replace(part, folder / name)
        return row
    except OSError as error:
        raise UserError(
            f"{folder / name}: it cannot be written ({error.strerror}); choose another folder"
        ) from None
    finally:
        _remove(part)
