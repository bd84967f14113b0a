"""One checkpoint's folder and its manifest: which files, how large, with which SHA-256."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from ealign_plugin.errors import UserError
from ealign_plugin.files import atomic_write, read_json

FORMAT = 1
"""Of the manifest; another one is refused."""

FOLDER, MANIFEST, WEIGHTS = "checkpoints", "manifest.json", "weights.safetensors"
OPTIMIZER, SHARDS, STATE = "optimizer.safetensors", "shards", "state.json"

TRASH = ".trash"
"""Ending of a checkpoint that is being deleted."""

NAME = re.compile(r"iter_\d{6,}(-\d+)?")
"""Of a checkpoint's folder."""

ADVICE = "use another checkpoint"
"""What ends messages about a checkpoint that is of no use."""

DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float64, torch.float32, torch.bfloat16, torch.float16),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    )
}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's folder and what its manifest says.

    The manifest holds ``format``, ``number`` (1 for a run's first, 2 for the next, whatever the iteration),
    ``iters``, ``metric`` (None: none was measured), ``versions``, ``world_size``, ``sharded``, ``files``
    (path → bytes, sha256), and what the caller added: ``config``, ``data``, ``revision``.
    """

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def iters(self) -> int:
        """Iterations done."""
        return self.manifest["iters"]

    @property
    def metric(self) -> float | None:
        """Higher is better."""
        return self.manifest["metric"]

    @property
    def weights(self) -> Path:
        """The file of the trained weights."""
        return self.folder / WEIGHTS

    def check(self, names: Iterable[str] | None = None) -> None:
        """Compare files with the manifest.

        Args:
            names: Which ones; None: all.

        Raises:
            UserError: a file is missing or has changed.
        """
        files = self.manifest["files"]
        names = list(files if names is None else names)
        for name in names:
            path, size = self.folder / name, files[name]["bytes"]
            if not path.is_file():
                raise UserError(f"{path}: the file is missing; use another checkpoint")
            if path.stat().st_size != size:
                raise UserError(
                    f"{path}: {path.stat().st_size} bytes found, {size} expected by {MANIFEST}; use another "
                    "checkpoint"
                )
        try:
            rows = file_rows(self.folder, names)
        except OSError as error:
            raise UserError(
                f"{self.folder}: its files cannot be read ({error.strerror}); use another checkpoint"
            ) from None
        for name, row in rows.items():
            if row["sha256"] != files[name]["sha256"]:
                raise UserError(
                    f"{self.folder / name}: its SHA-256 is not the one in {MANIFEST}, the file was damaged "
                    "or changed; use another checkpoint"
                )


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read the manifest of a checkpoint; its other files are not looked at.

    Raises:
        UserError: the manifest is missing, damaged, or of another format.
    """
    path = folder / MANIFEST
    manifest = read_json(path, advice=ADVICE)
    if manifest.get("format") != FORMAT:
        raise UserError(
            f"{path}: format {manifest.get('format')!r} found, {FORMAT} expected; update ealign-plugin or "
            "use another checkpoint"
        )
    files = manifest.get("files") or {}
    fits = (
        all(_is_a(manifest.get(key), int) for key in ("iters", "number", "world_size"))
        and (manifest.get("metric") is None or _is_a(manifest["metric"], int | float))
        and all(isinstance(manifest.get(key), dict) for key in ("config", "versions", "files"))
        and isinstance(manifest.get("sharded"), bool)
        and all(_is_row(name, row) for name, row in files.items())
        and {WEIGHTS, STATE} <= set(files)
    )
    if not fits:
        raise UserError(f"{path}: it is no manifest of a checkpoint; use another checkpoint")
    return Checkpoint(folder, manifest)


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest of a checkpoint, whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    atomic_write(folder / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())


def _is_a(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _is_row(name: str, row: Any) -> bool:
    path = PurePosixPath(name)
    inside = not path.is_absolute() and ".." not in path.parts
    return (
        inside
        and isinstance(row, dict)
        and _is_a(row.get("bytes"), int)
        and isinstance(row.get("sha256"), str)
    )


def check_names_of_files(names: Iterable[str]) -> None:
    """Check names of further files in a checkpoint.

    Raises:
        ValueError: it is no plain name of a file, or a checkpoint uses it.
    """
    taken = {MANIFEST, WEIGHTS, OPTIMIZER, SHARDS, STATE}
    for name in names:
        if not name or PurePosixPath(name).name != name or name in taken:
            raise ValueError(f"checkpoint: {name!r} cannot be the name of a further file in it")


def file_rows(folder: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of files, as the manifest holds them.

    Args:
        folder: The checkpoint's.
        names: Paths within it.

    Returns:
        Name → ``{"bytes": 123, "sha256": "..."}``.

    Raises:
        OSError: a file cannot be read.
    """

    def row(name: str) -> dict[str, Any]:
        with open(folder / name, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return {"bytes": file.tell(), "sha256": digest}

    with ThreadPoolExecutor(max_workers=8) as pool:
        return dict(zip(names, pool.map(row, names), strict=True))


def versions() -> dict[str, str | None]:
    """Of this package and what it computes with; None: not installed as a package."""

    def known(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    packages = {name: known(name.replace("_", "-")) for name in ("ealign_plugin", "torch", "transformers")}
    return {**packages, "python": platform.python_version()}
