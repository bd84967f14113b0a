"""Groups of people by what a training knew of their names."""

from __future__ import annotations

import pytest

from ealign_plugin.metrics import all_named, get_protocol
from ealign_plugin.metrics.subsets import (
    SUBSETS,
    TrainingNames,
    last_name,
    people_right_counts,
    person_f1_counts,
)
from ealign_plugin.news import Entity, NewsSample

TRAINING = TrainingNames.of(
    [
        NewsSample(
            key="a",
            split="train",
            caption="Ana Ruiz in Oslo.",
            caption_entities=(Entity("Ana Ruiz", "PERSON", 0), Entity("Oslo", "GPE", 12)),
            headline="McBride wins",
            paragraphs=("The mayor, Léa García-Lorca, met O’Neill’s brother.",),
        )
    ]
)


def people(*names: str) -> list[Entity]:
    return [Entity(name, "PERSON", 0) for name in names]


def belongs(group: str):
    return lambda name: SUBSETS[group](TRAINING, name)


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("Ana Ruiz", ["known"]),
        ("ana  ruiz's", ["known"]),
        ("Ruiz", ["known"]),  # a caption says it, as part of a name
        ("Bea Ruiz", ["strangers"]),
        ("Bea Ruiz Jr.", ["strangers"]),
        ("Léa García-Lorca", ["strangers"]),  # in an article, in no caption
        ("Tom McBride", ["strangers"]),  # in a headline
        ("Tom O'Neill", ["strangers"]),
        ("Ana Hartwood", ["strangers", "unseen_last_names"]),
        ("Hartwood", ["strangers", "unseen_last_names"]),
        ("Ana Mayor", ["strangers", "unseen_last_names"]),  # the article writes it as a word, not a name
    ],
)
def test_groups_of_a_name(name, groups):
    assert [group for group in SUBSETS if belongs(group)(name)] == groups


@pytest.mark.parametrize(
    ("name", "last"), [("Martin Luther King Jr.", "king"), ("Pelé", "pelé"), ("Juan de la Cruz", "cruz")]
)
def test_last_names(name, last):
    assert last_name(name) == last


@pytest.mark.parametrize(
    ("reference", "caption", "strangers", "known"),
    [
        (["Bea Ruiz"], ["Bea Ruiz"], (1, 1), (0, 0)),
        (["Bea Ruiz"], ["Ana Ruiz"], (0, 1), (0, 0)),
        (["Bea Ruiz"], [], (0, 1), (0, 0)),
        (["Ana Ruiz", "Bea Ruiz"], ["Bea Ruiz"], (1, 1), (0, 1)),  # each group alone
        (["Ana Ruiz", "Bea Ruiz"], ["Bea Ruiz", "Tom May"], (0, 1), (0, 1)),  # nobody else may be named
        ([], ["Bea Ruiz"], (0, 0), (0, 0)),
    ],
)
def test_people_right_of_a_group(reference, caption, strangers, known):
    pair = people(*reference), people(*caption)
    assert people_right_counts(*pair, belongs("strangers")) == strangers
    assert people_right_counts(*pair, belongs("known")) == known


def test_where_all_belong_to_the_group_people_right_is_that_of_all():
    for caption in (["Bea Ruiz", "Tom May"], ["Bea Ruiz"], ["Bea Ruiz", "Tom May", "Ana Ruiz"]):
        pair = people("Bea Ruiz", "Tom May"), people(*caption)
        right, counted = people_right_counts(*pair, belongs("strangers"))
        assert right / counted == all_named(pair[:1], pair[1:])


def test_f1_of_a_group_leaves_out_the_names_of_others():
    reference, caption = people("Ana Ruiz", "Bea Ruiz"), people("Bea Ruiz", "Tom May")
    caption.append(Entity("Oslo", "GPE", 0))
    counts = [person_f1_counts(reference, caption, belongs(group), get_protocol("tell")) for group in SUBSETS]
    assert counts == [(1, 1, 1, 2), (0, 0, 0, 1), (0, 1, 0, 0)]
