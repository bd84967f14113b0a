"""The way from a YAML to a checked config that begins before LAVIS is imported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ealign_plugin.host.compat import check_host, import_lavis
from ealign_plugin.host.config_file import read_config
from ealign_plugin.host.plugins import load_installed

if TYPE_CHECKING:
    from ealign_plugin.host.config import HostConfig


def load_run_config(cfg_path: str | Path, options: Sequence[str] = ()) -> HostConfig:
    """Import LAVIS and the installed plugins, then read, check and complete the config of a run.

    What can be said about the file without LAVIS is said first: LAVIS takes seconds to import.

    Args:
        cfg_path: YAML with the sections ``model``, ``datasets`` and ``run``.
        options: ``a.b=c`` each; they replace the YAML's values.

    Raises:
        UserError: LAVIS is missing or cannot be imported, or something in the file is wrong.
    """
    check_host()
    read_config(cfg_path, options)
    import_lavis()
    load_installed()
    from ealign_plugin.host.config import load_config

    return load_config(cfg_path, options)
