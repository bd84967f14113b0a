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
from collections.abc import Iterable, Iterator, Mapping
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
        "splits": dict(splits),
    }
    write_whole(folder / INDEX_NAME, (json.dumps(record, indent=1) + "\n").encode())


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path to write to beside the target, which gets the target's name only when all went well.

    Raises:
        UserError: the folder cannot be written, or is full.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
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


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it appears whole or not at all."""
    with whole(path) as part, open(part, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _write_shard(samples: list[tuple[NewsSample, bytes]], folder: Path, name: str) -> dict[str, Any]:
    with whole(folder / name) as part:
        # Times and owners would make equal samples differ in bytes.
        with open(part, "wb") as file, wds.TarWriter(file, encoder=False, mtime=0, user="", group="") as tar:
            for sample, jpeg in samples:
                record = json.dumps(sample.to_json(), ensure_ascii=False, separators=(",", ":"))
                tar.write({"__key__": sample.key, "jpg": jpeg, "json": record.encode()})
        return {
            "name": name,
            "samples": len(samples),
            "bytes": part.stat().st_size,
            "sha256": hashlib.sha256(part.read_bytes()).hexdigest(),
        }
