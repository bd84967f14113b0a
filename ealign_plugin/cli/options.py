"""What a run's YAML may set: each option with its default, its range and what it means.

Options of ``run`` come from the classes that own them; those of ``model`` and ``datasets`` from the default
YAMLs of a model type and a data set, whose comments say what they mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from ealign_plugin.data.defaults import DATASETS, base_of
from ealign_plugin.errors import UserError
from ealign_plugin.host.registration import registered_class
from ealign_plugin.host.run_keys import (
    HOST_RUN_KEYS,
    LAVIS_RUN_KEYS,
    RUN_HELP,
    run_classes,
    run_defaults,
    run_ranges,
)
from ealign_plugin.validation import TYPE_NAMES, as_yaml, nearest

RUN = {"task": "ealign_news_captioning", "runner": "ealign_runner"}
MODELS = ("ealign_instructblip", "ealign_llava")
DATASET = "ealign_micronews"


@dataclass(frozen=True, slots=True)
class Option:
    """One option.

    Args:
        key: Dotted, as ``--options`` takes it.
        default: As a YAML has it; empty where the user has to set it.
        range: What it may be, in words.
        help: What it means.
    """

    key: str
    default: str
    range: str
    help: str


def all_options() -> list[Option]:
    """Options of the sections ``run``, ``model`` and ``datasets`` with this package's task, runner and data.

    LAVIS and the plugins must be imported.
    """
    return [*run_options(), *model_options(), *dataset_options(DATASET)]


def model_options() -> list[Option]:
    """Options of ``model`` in any model type of this package, with the default of the first that has them."""
    options: dict[str, Option] = {}
    for arch in MODELS:
        for path in registered_class("model", arch).PRETRAINED_MODEL_CONFIG_DICT.values():
            for one in yaml_options(Path(path)):
                if one.key.startswith("model."):
                    options.setdefault(one.key, one)
    return list(options.values())


def dataset_options(name: str) -> list[Option]:
    """Options of a data set: those of its YAML, and of the base that it is laid over."""
    path: Path | None = DATASETS[name].path
    options: dict[str, Option] = {}
    while path is not None:
        for one in yaml_options(path):
            section, _, key = one.key.partition(".")
            if section == "datasets":
                key = f"datasets.{name}.{key.partition('.')[2]}"  # a base describes another data set
                options.setdefault(key, replace(one, key=key))
        path = base_of(path)
    return list(options.values())


def run_options() -> list[Option]:
    """Options of ``run``, by name."""
    task, runner = run_classes(RUN)
    helps = {**RUN_HELP, **getattr(task, "RUN_KEYS", {}), **getattr(runner, "RUN_KEYS", {})}
    types = {**LAVIS_RUN_KEYS, **HOST_RUN_KEYS}
    defaults, ranges = {**run_defaults(RUN), **RUN}, run_ranges(RUN)
    return [
        Option(
            f"run.{key}",
            as_yaml(defaults[key]) if key in defaults else "",
            str(ranges[key]) if key in ranges else type_in_words(defaults.get(key), types.get(key)),
            text,
        )
        for key, text in sorted(helps.items())
    ]


def type_in_words(default: object, declared: type | None = None) -> str:
    """'a whole number', 'a list' …; empty where the default is null and no type is declared."""
    kind = type(default) if default is not None else declared
    return TYPE_NAMES.get(kind, "") if kind else ""


def yaml_options(path: Path) -> list[Option]:
    """The values of a default YAML, each with the comment beside it, else the one above it.

    Mappings that hold values are opened; empty ones are options.
    """
    text = path.read_text(encoding="utf-8")
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{path}: found no mapping, expected a LAVIS config")
    values = yaml.safe_load(text)
    return list(_options_of(root, values, "", text.splitlines()))


def _options_of(
    node: yaml.MappingNode, values: Mapping[str, Any], where: str, lines: list[str]
) -> Iterator[Option]:
    for key, value in node.value:
        name = f"{where}.{key.value}" if where else str(key.value)
        held = values[key.value]
        if isinstance(value, yaml.MappingNode) and value.value:
            yield from _options_of(value, held, name, lines)
        else:
            help = _comment(lines, key.start_mark.line, value.end_mark)
            yield Option(name, as_yaml(held), type_in_words(held), help)


def _comment(lines: list[str], line: int, end: yaml.Mark) -> str:
    """The comment behind a value and its continuation, or those on the lines above it."""
    behind = lines[line][end.column if end.line == line else 0 :].partition("#")[2].strip()
    if behind:
        return behind
    above: list[str] = []
    while line and lines[line - 1].lstrip().startswith("#"):
        line -= 1
        above.insert(0, lines[line].lstrip().lstrip("#").strip())
    return " ".join(above)


def options_below(options: list[Option], key: str | None) -> list[Option]:
    """The option of this key, or all below it: ``run``, ``model.vision_config``; all where None.

    Raises:
        UserError: there is none; the message names the nearest.
    """
    if key is None:
        return options
    found = [one for one in options if one.key == key or one.key.startswith(f"{key}.")]
    if not found:
        near = nearest(key, [one.key for one in options])
        hint = f"; did you mean {near}?" if near else "; `ealign list options` prints all"
        raise UserError(f"list options: no option {key!r} found{hint}")
    return found
