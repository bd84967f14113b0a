"""LAVIS's registry and catalogues: the only file that reads or changes them.

Written for LAVIS 1.0.2. ``registry.mapping`` is a dict of dicts; classes lie under ``<kind>_name_mapping``,
folders under ``paths``, and the config of the run under ``state`` with the name ``configuration``. The two
catalogues (``model_zoo``, ``dataset_zoo``) are filled by their ``__init__``. tests/host/test_registration.py
fails where another version has another registry.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import lavis.common.optims  # noqa: F401  registers LAVIS's schedules, which `import lavis` does not
from lavis.common.registry import registry
from lavis.datasets.builders import dataset_zoo
from lavis.models import model_zoo

from ealign_plugin.errors import UserError

Kind = Literal["builder", "task", "processor", "model", "lr_scheduler", "runner"]
Registered = TypeVar("Registered", bound=type)

RUN_PATHS = ("output_dir", "result_dir")
"""Folders that a runner registers; LAVIS refuses a second run in the same process while they are there."""


def registered(kind: Kind, name: str) -> Callable[[Registered], Registered]:
    """Class decorator like LAVIS's ``registry.register_<kind>(name)``, but a reload replaces the older class.

    Raises:
        UserError: another package registered the name already.

    Example:
        @registered("model", "ealign_instructblip")
        class InstructBlip(BaseModel): ...
    """

    def wrap(cls: Registered) -> Registered:
        classes = registry.mapping[f"{kind}_name_mapping"]
        present = classes.get(name)
        if present is not None:
            if (present.__module__, present.__qualname__) != (cls.__module__, cls.__qualname__):
                raise UserError(
                    f"LAVIS registry: the {kind} name '{name}' is held by {present.__module__}."
                    f"{present.__qualname__}, expected it free for {cls.__module__}.{cls.__qualname__}; "
                    "uninstall one of the two packages"
                )
            del classes[name]
        return getattr(registry, f"register_{kind}")(name)(cls)

    return wrap


def registered_class(kind: Kind, name: object) -> Any:
    """The class that is registered under the name, or None; a list or mapping of a config names none."""
    if not isinstance(name, str):
        return None
    return registry.mapping[f"{kind}_name_mapping"].get(name)


def registered_names(kind: Kind) -> list[str]:
    """All names of a kind, sorted."""
    return sorted(registry.mapping[f"{kind}_name_mapping"])


def refresh_catalogues() -> None:
    """Let LAVIS list what was registered since it was imported.

    It fills both catalogues while it is imported; others hold the same two objects, so they are filled again.
    """
    for catalogue in (model_zoo, dataset_zoo):
        catalogue.__init__()


def set_configuration(config: Any) -> None:
    """Make this the config that LAVIS's and our registered classes find."""
    registry.register("configuration", config)


def current_run() -> Any:
    """The section ``run`` of the process's config; an empty mapping where no run was configured."""
    return getattr(registry.get("configuration", no_warning=True), "run_cfg", {})


def registered_path(name: str) -> str | None:
    """A folder that LAVIS knows by name, such as ``cache_root``."""
    return registry.get_path(name)


def set_path(name: str, path: str) -> None:
    """Replace a folder of LAVIS; its own ``register_path`` refuses a second one."""
    registry.mapping["paths"][name] = path


def forget_run_paths() -> None:
    """Remove the folders of an earlier run in this process, so that the next runner can register its own."""
    for name in RUN_PATHS:
        registry.mapping["paths"].pop(name, None)
