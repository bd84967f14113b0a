"""The classes that LAVIS sees: thin adapters around the rooms below, each registered under ``ealign_...``."""

from __future__ import annotations

from importlib import import_module

from ealign_plugin.host.cache import adopt_cache_root
from ealign_plugin.host.registration import refresh_catalogues

MODULES = ("builders", "processors", "models", "task", "runner", "schedules")


def register() -> None:
    """Import the modules whose classes carry `registered`, let LAVIS list them, mend its cache folder."""
    for name in MODULES:
        import_module(f"{__name__}.{name}")
    refresh_catalogues()
    adopt_cache_root()
