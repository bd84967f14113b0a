"""Where downloaded and generated data lie."""

from __future__ import annotations

import os
from pathlib import Path

from ealign_plugin.host.registration import registered_path, set_path


def cache_root() -> Path:
    """EALIGN_CACHE if set; else LAVIS's own cache folder where it can be used; else ~/.cache/ealign.

    LAVIS 1.0.2 ships with a folder that only its authors have. Nothing is created here.
    """
    if chosen := os.environ.get("EALIGN_CACHE"):
        return Path(chosen).expanduser().absolute()
    host = registered_path("cache_root")
    if host and os.path.isdir(host) and os.access(host, os.W_OK):
        return Path(host)
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute() / "ealign"


def adopt_cache_root() -> None:
    """Give LAVIS's data sets a cache folder that exists or can be made."""
    set_path("cache_root", str(cache_root()))
