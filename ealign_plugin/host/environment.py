"""What a run ran on: in its folder, and in the manifests of its checkpoints."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

NAME = "environment.json"


@cache
def code_revision() -> str | None:
    """The git revision of this package, with ``+`` where files were changed; None outside of a checkout."""
    here = Path(__file__).parent
    if not (here.parents[1] / ".git").exists():
        return None
    commands = (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
    try:
        head, changed = (
            subprocess.run(
                ["git", *c], cwd=here, capture_output=True, text=True, timeout=20, check=True
            ).stdout
            for c in commands
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head.strip() + ("+" if changed.strip() else "")


def environment() -> dict[str, Any]:
    """Command, revision, machine and package versions, as JSON values."""
    import torch

    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        # As it was typed: sys.argv names the file that python -m found.
        "command": [Path(sys.orig_argv[0]).name, *sys.orig_argv[1:]],
        "revision": code_revision(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "devices": devices,
        "cuda": torch.version.cuda,
        "packages": dict(sorted({d.metadata["Name"]: d.version for d in distributions()}.items())),
    }


def write_environment(folder: Path) -> None:
    """Write `environment` into a run's folder."""
    (folder / NAME).write_text(json.dumps(environment(), indent=1) + "\n", encoding="utf-8")
