"""Plugins of LAVIS: installed ones by the entry-point group ``lavis.plugins``, others by ``run.plugins``."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import entry_points

from ealign_plugin.errors import UserError

GROUP = "lavis.plugins"


def installed_packages() -> set[str]:
    """Top-level names of the modules that installed packages declare as plugins."""
    return {point.value.partition(":")[0].partition(".")[0] for point in entry_points(group=GROUP)}


def load_installed() -> None:
    """Import what installed packages declare; importing is what registers.

    Raises:
        UserError: an installed plugin cannot be imported.
    """
    for point in entry_points(group=GROUP):
        try:
            point.load()
        except (ImportError, AttributeError) as error:
            raise UserError(
                f"plugin '{point.name}' = {point.value} (entry-point group {GROUP}): {error}; "
                "reinstall or uninstall its package"
            ) from error


def load_modules(names: Sequence[str]) -> None:
    """Import the modules of ``run.plugins``.

    Raises:
        UserError: not a list of module names, or one of them cannot be imported.
    """
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise UserError(
            f"run.plugins: found {names!r}, expected a list of module names, e.g. [my_package.models]"
        )
    for name in names:
        try:
            import_module(name)
        except ImportError as error:
            raise UserError(
                f"run.plugins: module '{name}' cannot be imported: {error}; expected a module on Python's "
                "path; install it or set PYTHONPATH"
            ) from error
