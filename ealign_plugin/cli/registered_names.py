"""What is registered, also by plugins: rows of ``ealign list``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from ealign_plugin.host.registration import registered_class, registered_names

Row = dict[str, str]


def first_sentence(described: object) -> str:
    """The first line of a docstring; empty without one."""
    text = inspect.getdoc(described) or ""
    return text.split("\n\n")[0].replace("\n", " ").replace("``", "").replace("`", "")


def package_of(described: Any) -> str:
    """'ealign_plugin': where a class, a function or an object comes from."""
    named = described if hasattr(described, "__qualname__") else type(described)
    return named.__module__.partition(".")[0]


def tasks() -> list[Row]:
    """Alignment tasks: what the model learns about a photo."""
    from ealign_plugin.alignment.tasks import TASKS

    return [
        {
            "task": name,
            "share": f"{task.default_share:g}",
            "from": package_of(task),
            "what": first_sentence(type(task)),
        }
        for name, task in TASKS.items()
    ]


def contexts() -> list[Row]:
    """Context strategies: what of an article the model reads."""
    from ealign_plugin.alignment.contexts import CONTEXTS

    rows = []
    for name, strategy in CONTEXTS.items():
        needs = ["pass 1"] * strategy.needs_selection + ["the reference caption"] * strategy.reads_caption
        rows.append(
            {
                "context": name,
                "needs": ", ".join(needs),
                "from": package_of(getattr(strategy, "__wrapped__", strategy)),
                "what": first_sentence(getattr(strategy, "__wrapped__", strategy)),
            }
        )
    return rows


def controls() -> list[Row]:
    """Controls of a test: rows that say what else explains its figures."""
    from ealign_plugin.inference.controls.names import CONTROLS

    return [{"control": name, "what": what} for name, what in CONTROLS.items()]


def metrics() -> list[Row]:
    """Metrics: what is measured of captions."""
    from ealign_plugin.metrics import METRICS

    return [
        {
            "metric": name,
            "figures": ", ".join(metric.figures),
            "from": package_of(metric.function),
            "what": first_sentence(metric.function),
        }
        for name, metric in METRICS.items()
    ]


def datasets() -> list[Row]:
    """Data sets of a YAML, and what ``ealign prepare`` reads."""
    from ealign_plugin.data.readers import READERS

    rows = [
        {"data set": name, "for": "a YAML's datasets", "from": package_of(cls), "what": first_sentence(cls)}
        for name, cls in _builders()
    ]
    for name, reader in READERS.items():
        row = {"data set": name, "for": "ealign prepare", "from": package_of(reader.read)}
        rows.append(row | {"what": f"reads {reader.files}"})
    return rows


def _builders() -> list[tuple[str, Any]]:
    classes = [(name, registered_class("builder", name)) for name in registered_names("builder")]
    return sorted(classes, key=lambda pair: (package_of(pair[1]) == "lavis", pair[0]))


def models() -> list[Row]:
    """Model families, ``model.arch``, and their ``model.model_type``."""
    rows = []
    for name in registered_names("model"):
        cls = registered_class("model", name)
        types = ", ".join(getattr(cls, "PRETRAINED_MODEL_CONFIG_DICT", {}))
        family = next((base for base in cls.__mro__[1:] if base.__module__ != cls.__module__), cls)
        origin = cls if package_of(cls) == "lavis" else family
        rows.append(
            {"model": name, "types": types, "from": package_of(origin), "what": first_sentence(origin)}
        )
    return sorted(rows, key=lambda row: (row["from"] == "lavis", row["model"]))


def options(key: str | None = None) -> list[Row]:
    """Options of a run's YAML: default, range, meaning."""
    from ealign_plugin.cli.options import all_options, options_below

    found = options_below(all_options(), key)
    return [{field.name: getattr(one, field.name) for field in fields(one)} for one in found]


KINDS: dict[str, Callable[..., list[Row]]] = {
    "tasks": tasks,
    "contexts": contexts,
    "controls": controls,
    "metrics": metrics,
    "datasets": datasets,
    "models": models,
    "options": options,
}
"""What can be listed."""
