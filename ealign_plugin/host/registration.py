"""Putting our classes where LAVIS looks for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar

from lavis.common.registry import registry
from lavis.datasets.builders import dataset_zoo
from lavis.models import model_zoo

from ealign_plugin.errors import UserError

Kind = Literal["builder", "task", "processor", "model", "lr_scheduler", "runner"]
Registered = TypeVar("Registered", bound=type)


def refresh_catalogues() -> None:
    """LAVIS fills both while it is imported; others hold the same two objects, so they are filled again."""
    for catalogue in (model_zoo, dataset_zoo):
        catalogue.__init__()


def registered(kind: Kind, name: str) -> Callable[[Registered], Registered]:
    """Class decorator like LAVIS's ``registry.register_<kind>(name)``, but a reload replaces the older class.

    Raises:
        UserError: another package holds the name already.

    Example:
        @registered("model", "ealign_instructblip")
        class InstructBlip(BaseModel): ...
    """

    def wrap(cls: Registered) -> Registered:
        holders = registry.mapping[f"{kind}_name_mapping"]
        holder = holders.get(name)
        if holder is not None:
            if (holder.__module__, holder.__qualname__) != (cls.__module__, cls.__qualname__):
                raise UserError(
                    f"LAVIS registry: the {kind} name '{name}' is held by {holder.__module__}."
                    f"{holder.__qualname__}, expected it free for {cls.__module__}.{cls.__qualname__}; "
                    "uninstall one of the two packages"
                )
            del holders[name]
        return getattr(registry, f"register_{kind}")(name)(cls)

    return wrap
