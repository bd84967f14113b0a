"""The model families as LAVIS sees them: each joined with its BaseModel and registered under its name."""

from __future__ import annotations

import sys

from lavis.models.base_model import BaseModel

from ealign_plugin.host.registration import refresh_catalogues, registered
from ealign_plugin.models.base import NewsModel
from ealign_plugin.models.families import FAMILIES


def join(name: str, family: type[NewsModel]) -> None:
    """Register with LAVIS a class that is the family and LAVIS's BaseModel at once.

    BaseModel adds what LAVIS calls on a model and a family lacks, such as ``before_evaluation`` and
    ``show_n_params``; where both have a method, the family's is taken. The class is an attribute of this
    module under its registered name, by which pickle finds it again.
    """
    namespace = {
        "__module__": __name__,
        "__qualname__": name,
        "__doc__": f"`{family.__module__}.{family.__qualname__}` for LAVIS.",
    }
    joined = registered("model", name)(type(family.__name__, (family, BaseModel), namespace))
    setattr(sys.modules[__name__], name, joined)
    refresh_catalogues()  # a family of another package comes after LAVIS made its list


FAMILIES.subscribe(join)
