"""New names are people's names to spaCy's small model, so that a renamed reference keeps its people."""

from __future__ import annotations

from ealign_plugin.entities import load_ner
from ealign_plugin.inference.controls.new_names import LAST, MEN, WOMEN


def test_new_names_are_tagged_as_people():
    first = [*WOMEN, *MEN]
    names = [f"{first[number % len(first)]} {last}" for number, last in enumerate(LAST[::3])]
    found = load_ner().entities([f"{name} in Oslo on 3 May." for name in names])
    right = [
        any((entity.text, entity.label) == (name, "PERSON") for entity in entities)
        for name, entities in zip(names, found, strict=True)
    ]
    assert sum(right) / len(right) > 0.98


def test_every_name_is_there_once():
    assert len(LAST) == len(set(LAST)) > 600
    assert not set(WOMEN) & set(MEN)
