"""The section ``model`` of a config as plain values, and the defaults that a model type brings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ealign_plugin.errors import UserError
from ealign_plugin.validation import unknown

CONFIGS = Path(__file__).parent.parent / "configs"


def plain(section: Mapping[str, Any]) -> dict[str, Any]:
    """The section as dicts, lists and scalars, its ``${...}`` resolved; OmegaConf's containers will do."""
    values: Any = OmegaConf.to_container(OmegaConf.create(dict(section)), resolve=True)
    return values


def values(section: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Those of the section's values that it has.

    >>> values({"max_txt_len": 64, "arch": "ealign_llava"}, ["max_txt_len", "max_tokens"])
    {'max_txt_len': 64}
    """
    return {name: section[name] for name in names if name in section}


def tokenizer_path(section: Mapping[str, Any]) -> Path:
    """The file of ``model.tokenizer``, one of those that come with the package."""
    return CONFIGS / "tokenizers" / section["tokenizer"] / "tokenizer.json"


def default_path(configs: Mapping[str, str], model_type: object) -> str:
    """The YAML file of a model type.

    Args:
        configs: ``PRETRAINED_MODEL_CONFIG_DICT`` of a family: model type → file.
        model_type: ``model.model_type`` of a config.

    Raises:
        UserError: the family has no such type.
    """
    if not isinstance(model_type, str) or model_type not in configs:
        raise UserError(unknown("model.model_type", model_type, configs, what="model type"))
    return configs[model_type]


def defaults_of(configs: Mapping[str, str], model_type: object) -> dict[str, Any]:
    """The section ``model`` of the YAML file of a model type; see `default_path`."""
    return plain(OmegaConf.load(default_path(configs, model_type))["model"])


def merged(defaults: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults with the changes over them, key by key as deep as both are mappings; lists are replaced.

    >>> merged({"a": {"b": 1, "c": 2}, "d": [1, 2]}, {"a": {"b": 3}, "d": [4]})
    {'a': {'b': 3, 'c': 2}, 'd': [4]}
    """
    result = dict(defaults)
    for key, value in changes.items():
        below = result.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            result[key] = merged(below, value)
        else:
            result[key] = value
    return result
