"""Annotated samples → WebDataset shards.

A shard holds ``<key>.jpg`` and ``<key>.json`` for each sample. Shards and ``index.json`` appear whole or
not at all: they are written under another name and renamed, the index last. The same samples give the
same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import webdataset as wds
from upath import UPath

from ealign_plugin.data.shards.index import INDEX_NAME
from ealign_plugin.errors import UserError
from ealign_plugin.files import atomic_write
from ealign_plugin.news import SCHEMA_VERSION, NewsSample


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
    atomic_write(folder / INDEX_NAME, (json.dumps(record, indent=1) + "\n").encode())


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
    atomic_write(folder / name, content)
    digest = hashlib.sha256(content).hexdigest()
    return {"name": name, "samples": len(samples), "bytes": len(content), "sha256": digest}
