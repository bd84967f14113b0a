"""Changes of rungs, and what a ladder wrote."""

import json
from pathlib import Path

from ealign_plugin.alignment.mixture import TaskMixture


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def recipe_of(config: dict) -> TaskMixture:
    """The mixture of a config's one data set."""
    (section,) = config["datasets"].values()
    return TaskMixture().changed(section["recipe"])
