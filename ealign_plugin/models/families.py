"""The model families by name, and the way from the section ``model`` of a config to a model.

A family is a subclass of `ealign_plugin.models.base.NewsModel` in one file, such as ``llava.py``. Another
package adds one by importing its module, whose class carries `register_family`; LAVIS then knows it under the
same name.

Example:
    >>> from ealign_plugin.models.families import build_model
    >>> build_model({"arch": "ealign_llava", "model_type": "micro", "max_txt_len": 256}).max_txt_len
    256
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from ealign_plugin.models.section import defaults_of, merged, plain
from ealign_plugin.registry import Registry

if TYPE_CHECKING:
    from ealign_plugin.models.base import NewsModel

FAMILIES: Registry[type[NewsModel]] = Registry("model family")

Family = TypeVar("Family", bound="type[NewsModel]")


def register_family(name: str) -> Callable[[Family], Family]:
    """Class decorator: make a family known by its name, ``model.arch`` of a config.

    Raises:
        UserError: another package holds the name.
    """

    def register(family: Family) -> Family:
        FAMILIES.register(name, family)
        return family

    return register


def build_model(section: Mapping[str, Any]) -> NewsModel:
    """The model that a section ``model`` describes, with its weights.

    Args:
        section: ``arch`` names the family; what is missing comes from the YAML file of ``model_type``, where
            one is named.

    Raises:
        UserError: there is no such family or model type; a value is impossible; weights are missing or of
            another model.
    """
    changes = plain(section)
    family = FAMILIES.get(changes.get("arch"), "model.arch")
    if changes.get("model_type") is not None:
        changes = merged(defaults_of(family.PRETRAINED_MODEL_CONFIG_DICT, changes["model_type"]), changes)
    return family.from_config(changes)
