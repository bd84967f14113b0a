"""A folder for each run, under the working directory and never written to by two runs.

A run that was interrupted left its ``config.yaml`` there and no ``metrics.json``: the same command finds it
and goes on in it, unless a process still works there, which holds the folder's lock.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import IO

from ealign_plugin.errors import UserError
from ealign_plugin.files import cannot_write

CONFIG, FINISHED, LOCK, LATEST = "config.yaml", "metrics.json", ".lock", "latest"

_held: dict[Path, IO[str]] = {}  # the locks of this process, until it ends


def make_run_folder(output_dir: str, task: str, now: datetime, go_on_with: str | None = None) -> Path:
    """Create and return ``<output_dir>/<task>/2026-11-23_14-05-09``, with -2, -3 ... where that is taken.

    With ``go_on_with``, the text of a resolved config, the newest interrupted run's folder of this config is
    returned, if there is one.

    LAVIS puts a relative ``output_dir`` into site-packages, and names runs by ten minutes, so that they
    overwrite each other.

    Raises:
        UserError: the folder cannot be made or written to.
    """
    parent = (Path.cwd() / Path(output_dir).expanduser() / task).absolute()
    name = now.strftime("%Y-%m-%d_%H-%M-%S")
    try:
        if go_on_with is not None and (found := interrupted(parent, go_on_with)):
            return found
        parent.mkdir(parents=True, exist_ok=True)
        for number in count(1):
            folder = parent / (name if number == 1 else f"{name}-{number}")
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            break
    except OSError as error:
        raise unwritable(parent, error) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise unwritable(folder, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    lock(folder)
    return folder


def link_latest(folder: Path) -> None:
    """Let the link ``latest`` beside the folder point to it."""
    with contextlib.suppress(OSError):  # a convenience, and not every disk has links
        new = folder.parent / f".{LATEST}.{os.getpid()}"
        new.symlink_to(folder.name)
        os.replace(new, folder.parent / LATEST)


def interrupted(parent: Path, config: str) -> Path | None:
    """The newest folder of a run with this config that is not finished, now locked by this process."""
    for folder in sorted(parent.glob("*"), reverse=True):
        if folder.is_symlink():
            continue
        try:
            same = (folder / CONFIG).read_text(encoding="utf-8") == config
        except (OSError, UnicodeDecodeError):
            continue
        if same and not (folder / FINISHED).exists() and lock(folder):
            return folder
    return None


def lock(folder: Path) -> bool:
    """Whether the folder is now this process's alone; yes where there are no locks, as on some disks."""
    if folder in _held:
        return False
    file = (folder / LOCK).open("a")
    try:
        # Not flock: data workers would inherit that and keep it for a while after this process was killed.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.close()
        return False
    except OSError:
        file.close()
        return True
    _held[folder] = file
    return True


def unlock(folder: Path) -> None:
    """At the end of a run."""
    if file := _held.pop(folder, None):
        with contextlib.suppress(FileNotFoundError):
            (folder / LOCK).unlink()
        file.close()


def unwritable(folder: Path, error: OSError) -> UserError:
    """The message for a run's folder that cannot be made or written to; to be raised by the caller."""
    advice = "set run.output_dir to a folder that you may write to, or run in another directory"
    return cannot_write(f"run.output_dir: {folder}", error, advice)


def discard_if_empty(folder: Path) -> None:
    """After a run that failed before it wrote anything."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
