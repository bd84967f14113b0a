"""The table that corrects names without looking or reading."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ealign_plugin.inference.controls.twins import people_of, with_twins
from ealign_plugin.news import Entity, NewsSample, Sentence


def people(text: str, *names: str) -> tuple[Entity, ...]:
    return tuple(Entity(name, "PERSON", text.index(name)) for name in names)


FIRST, SECOND = "Karen Wright met Omar Farouk’s aunt.", "Wright left with Leo Ito."
SAMPLE = NewsSample(
    key="a",
    split="test",
    caption="",
    paragraphs=(f"{FIRST} {SECOND}",),
    sentences=(
        Sentence(FIRST, 0, 0, people(FIRST, "Karen Wright", "Omar Farouk’s")),
        Sentence(SECOND, 0, len(FIRST) + 1, people(SECOND, "Wright", "Leo Ito")),
    ),
)


def test_people_of_an_article_in_order_without_parts_of_names():
    assert people_of(SAMPLE) == ["Karen Wright", "Omar Farouk", "Leo Ito"]


@pytest.mark.parametrize(
    ("caption", "names", "corrected"),
    [
        ("Susan Campbell in Oslo.", ["Susan Campbell"], "Karen Wright in Oslo."),
        ("Karen Wright, Ann Bo.", ["Karen Wright", "Ann Bo"], "Karen Wright, Omar Farouk."),
        ("Ann Bo, Cy Day, Eve Fox.", ["Ann Bo", "Cy Day", "Eve Fox"], "Karen Wright, Omar Farouk, Leo Ito."),
        ("Wright in Oslo.", ["Wright"], "Wright in Oslo."),
        ("A dog.", [], "A dog."),
    ],
)  # fmt: skip
def test_people_whom_the_article_does_not_name_are_replaced_in_order(caption, names, corrected):
    assert with_twins(caption, people(caption, *names), SAMPLE) == corrected


def test_more_people_than_the_article_has_stay():
    caption = "Ann Bo, Cy Day, Eve Fox and Gus Hay."
    corrected = with_twins(caption, people(caption, "Ann Bo", "Cy Day", "Eve Fox", "Gus Hay"), SAMPLE)
    assert corrected == "Karen Wright, Omar Farouk, Leo Ito and Gus Hay."


def test_the_same_name_twice_is_replaced_by_the_same():
    caption = "Ann Bo beside Ann Bo."
    twice = (Entity("Ann Bo", "PERSON", 0), Entity("Ann Bo", "PERSON", 14))
    assert with_twins(caption, twice, SAMPLE) == "Karen Wright beside Karen Wright."


def test_the_data_sets_own_table_is_taken_where_the_article_names_the_twin():
    twins = {"Susan Campbell": "Leo Ito", "Ann Bo": "Nobody Here"}
    sample = replace(SAMPLE, extra={"twins": twins})
    caption = "Susan Campbell and Ann Bo."
    assert (
        with_twins(caption, people(caption, "Susan Campbell", "Ann Bo"), sample)
        == "Leo Ito and Karen Wright."
    )


def test_other_entities_stay():
    assert with_twins("Bergen.", (Entity("Bergen", "GPE", 0),), SAMPLE) == "Bergen."
