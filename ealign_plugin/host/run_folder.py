"""A folder for each run, under the working directory and never written to by two runs."""

from __future__ import annotations

import os
from datetime import datetime
from itertools import count
from pathlib import Path

from ealign_plugin.errors import UserError


def make_run_folder(output_dir: str, task: str, now: datetime) -> Path:
    """Create and return ``<output_dir>/<task>/2026-11-23_14-05-09``, with -2, -3 ... where that is taken.

    LAVIS puts a relative ``output_dir`` into site-packages, and names runs by ten minutes, so that they
    overwrite each other.

    Raises:
        UserError: the folder cannot be made or written to.
    """
    parent = (Path.cwd() / Path(output_dir).expanduser() / task).absolute()
    name = now.strftime("%Y-%m-%d_%H-%M-%S")
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for number in count(1):
            folder = parent / (name if number == 1 else f"{name}-{number}")
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            break
    except OSError as error:
        raise unwritable(output_dir, parent, error.strerror or str(error)) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise unwritable(output_dir, folder, "no permission to write")
    return folder


def unwritable(output_dir: str, folder: Path, found: str) -> UserError:
    return UserError(
        f"run.output_dir: {output_dir}: cannot make or write {folder}: {found}; expected a folder that you "
        "may write to; set run.output_dir to another one or run in another directory"
    )


def discard_if_empty(folder: Path) -> None:
    """After a run that failed before it wrote anything."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
