"""Samples, reports and sections of a config for dry runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from ealign_plugin.news import Entity, NewsSample, Sentence


class Report(NamedTuple):
    """What a command said: its exit code, stdout without the blanks of its columns, stderr."""

    code: int
    plan: str
    error: str


def news(**values: Any) -> NewsSample:
    """A sample that can give every task."""
    ruiz = (Entity("Ruiz", "PERSON", 0),)
    sentences = (Sentence("Ruiz came.", 0, 0, ruiz), Sentence("Rain.", 0, 11, ()))
    given = {"key": "a", "split": "train", "caption": "Ruiz.", "caption_entities": ruiz}
    return NewsSample(**given | {"paragraphs": ("Ruiz came. Rain.",), "sentences": sentences} | values)


def files(*folders: Path) -> set[Path]:
    return {path for folder in folders for path in folder.rglob("*")}


def pretrained(source: str | Path, **more: Any) -> dict:
    return {"arch": "ealign_instructblip", "model_type": "vicuna7b", "pretrained": str(source), **more}
