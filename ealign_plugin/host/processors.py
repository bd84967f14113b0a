"""Processors that LAVIS knows by name: its own, and those of other packages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lavis import processors  # noqa: F401  registers LAVIS's own
from lavis.common.registry import registry
from omegaconf import OmegaConf

from ealign_plugin.errors import UserError
from ealign_plugin.validation import unknown


def processor_from(values: Mapping[str, Any]) -> Any:
    """The processor that ``name`` and arguments describe.

    Raises:
        UserError: nobody registered one of this name.
    """
    cls = registry.get_processor_class(values.get("name"))
    if cls is None:
        raise UserError(unknown("processor", values.get("name"), registry.list_processors(), "name"))
    return cls.from_config(OmegaConf.create(dict(values)))
