"""What the caption says about the article's sentences, and what pass 1 chooses."""

import doctest
import random

import pytest
from articles import ARTICLES, STORM, article
from hypothesis import assume, given
from hypothesis import strategies as st

from ealign_plugin.alignment import selection
from ealign_plugin.alignment.selection import (
    Selection,
    in_article,
    noisy_oracle,
    oracle,
    parse_entities,
    select_sentences,
    sentence_labels,
    shared_entities,
)
from ealign_plugin.entities import VISUAL_LABELS, entity_key
from ealign_plugin.news import NewsSample

SEEDS = st.integers(0, 10_000).map(random.Random)
SHARE = st.floats(0, 1)


def test_the_examples_of_the_docstrings():
    assert doctest.testmod(selection).failed == 0


# Labels


def test_a_sentence_is_positive_when_it_shares_a_visual_entity_with_the_caption():
    assert sentence_labels(STORM) == [False, False, True, False, True, False]


@pytest.mark.parametrize(
    ("caption", "sentence", "positive"),
    [
        ("[Oslo/GPE]", "[Oslo/LOC]", True),  # the same name; spaCy is unsure of its type
        ("[The World Cup's/EVENT] end", "the [world cup/EVENT]", True),
        ("[Monday/DATE]", "[Monday/DATE]", False),
        ("[May/PERSON]", "[May/DATE]", False),
        ("[May/DATE]", "[May/PERSON]", False),
        ("Oslo", "[Oslo/GPE]", False),  # found by the pipeline in one of them only
        ("[Oslo/GPE]", "Oslo", False),
        ("[—/ORG]", "[—/ORG]", False),
        ("", "[Oslo/GPE]", False),
    ],
)
def test_labels(caption, sentence, positive):
    assert sentence_labels(article(caption, sentence)) == [positive]


@given(ARTICLES)
def test_labels_by_their_definition(sample):
    def visual(entities):
        return [entity_key(e.text) for e in entities if e.label in VISUAL_LABELS]

    assert sentence_labels(sample) == [
        any(key in visual(sample.caption_entities) for key in visual(sentence.entities))
        for sentence in sample.sentences
    ]


# Names


def test_shared_names_are_visual_or_not_in_article_order_and_each_once():
    assert shared_entities(STORM) == ("Monday", "Ana Ruiz", "OSLO")
    assert shared_entities(STORM, [4, 5]) == ("OSLO",)
    assert shared_entities(STORM, [1]) == ()


def test_a_name_stands_on_one_line():
    assert shared_entities(article("[New York/GPE]", "[New \n York/GPE].")) == ("New York",)


@pytest.mark.parametrize("sample", [article("[Oslo/GPE]"), article("Rain.", "[Oslo/GPE].")])
def test_no_names_are_shared_where_one_side_has_none(sample):
    assert shared_entities(sample) == ()


# Oracle


def test_the_oracle_takes_the_positive_sentences_and_the_shared_names():
    assert oracle(STORM) == Selection((2, 4), ("Monday", "Ana Ruiz", "OSLO"))
    assert oracle(STORM, entities=False) == Selection((2, 4))
    assert oracle(STORM, sentences=False) == Selection(entities=("Monday", "Ana Ruiz", "OSLO"))


@given(ARTICLES, SEEDS)
def test_without_mistakes_the_noisy_oracle_is_the_oracle(sample, rng):
    assert noisy_oracle(sample, rng, miss=0, extra=0) == oracle(sample)


@given(ARTICLES, SEEDS, SHARE, SHARE)
def test_a_noisy_selection_is_in_order_and_keeps_a_right_sentence(sample, rng, miss, extra):
    chosen, right = noisy_oracle(sample, rng, miss=miss, extra=extra), set(oracle(sample).sentences)
    assert list(chosen.sentences) == sorted(set(chosen.sentences))
    assert bool(right & set(chosen.sentences)) == bool(right)
    assert len(set(chosen.sentences) - right) <= len(right)
    assert set(chosen.entities) <= set(oracle(sample).entities)


def test_mistakes_are_as_frequent_as_asked():
    sample = article("[Oslo/GPE]", *["[Oslo/GPE]."] * 10, *["Rain."] * 10)
    rng, draws = random.Random(1), 400
    drawn = [noisy_oracle(sample, rng, miss=0.2, extra=0.5) for _ in range(draws)]
    assert sum(i < 10 for d in drawn for i in d.sentences) / draws == pytest.approx(8, rel=0.05)
    assert sum(i >= 10 for d in drawn for i in d.sentences) / draws == pytest.approx(5, rel=0.05)
    assert sum(len(d.entities) for d in drawn) / draws == pytest.approx(0.8, rel=0.1)


# Pass 1

SCORES = st.lists(st.sampled_from([0.0, 0.2, 0.5, 0.7, 1.0]), max_size=8)


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        ({}, (1, 2, 4)),
        ({"threshold": 0.6}, (1, 4)),
        ({"threshold": None}, (0, 1, 2, 3, 4)),
        ({"threshold": 1.1}, ()),
        ({"top_k": 2}, (1, 4)),
        ({"top_k": 2, "threshold": 0.8}, (1,)),
        ({"top_k": 4, "threshold": None}, (0, 1, 2, 4)),  # 0 and 3 are equal: the first of them
        ({"top_k": 0}, ()),
        ({"top_k": 9}, (1, 2, 4)),
    ],
)
def test_threshold_and_top_k(options, chosen):
    assert select_sentences([0.1, 0.9, 0.5, 0.1, 0.7], **options) == chosen


def test_nothing_is_selected_from_an_empty_article():
    assert select_sentences([]) == ()


@given(SCORES, st.none() | st.sampled_from([0.0, 0.5, 0.7]), st.none() | st.integers(0, 9))
def test_the_selection_is_in_order_and_nothing_better_is_left_out(scores, threshold, top_k):
    chosen = select_sentences(scores, threshold=threshold, top_k=top_k)
    passing = [i for i, score in enumerate(scores) if threshold is None or score >= threshold]
    assert list(chosen) == sorted(set(chosen))
    assert len(chosen) == min(len(passing), len(scores) if top_k is None else top_k)
    assert all((scores[i], -i) > (scores[j], -j) for i in chosen for j in set(passing) - set(chosen))


@given(ARTICLES)
def test_perfect_scores_select_what_the_oracle_selects(sample):
    assert select_sentences([float(label) for label in sentence_labels(sample)]) == oracle(sample).sentences


# Answers


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        ("Ana Ruiz; Oslo", ["Ana Ruiz", "Oslo"]),
        ("Ana Ruiz;Oslo ;", ["Ana Ruiz", "Oslo"]),
        ("Ana Ruiz; Oslo.", ["Ana Ruiz", "Oslo"]),
        ("1. Ana Ruiz\n2. Oslo", ["Ana Ruiz", "Oslo"]),
        ("1) Ana Ruiz; (2) Oslo\n3.", ["Ana Ruiz", "Oslo"]),
        ("- Ana Ruiz\n* Oslo\n• Lagos\n", ["Ana Ruiz", "Oslo", "Lagos"]),
        ("Oslo; the Oslo; OSLO’s; Lagos", ["Oslo", "Lagos"]),
        (
            "U.S.; Washington, D.C.; Jan. 5; 2.5 million; 6-3",
            ["U.S.", "Washington, D.C.", "Jan. 5", "2.5 million", "6-3"],
        ),
        ("none", []),
        ("None.", []),
        ("- none", []),
        ("", []),
        (" ; ;\n. ; -", []),
    ],
)
def test_answers_to_the_entity_task(answer, names):
    assert list(parse_entities(answer, "; ")) == names


@pytest.mark.parametrize(
    ("separator", "answer"),
    [(", ", "Sandra Moe,Oslo"), (" and ", "Sandra Moe and Oslo"), ("\n", "Sandra Moe\nOslo")],
)
def test_other_separators(separator, answer):
    assert parse_entities(answer, separator) == ("Sandra Moe", "Oslo")


@given(ARTICLES, st.sampled_from(["; ", ", ", " | ", " and ", "\n"]))
def test_the_target_of_the_entity_task_is_read_back(sample, separator):
    names = shared_entities(sample)
    assume(names)
    assert parse_entities(separator.join(names), separator) == names


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Ana Ruiz", True),
        ("ana ruiz", True),
        ("the Oslo", True),
        ("Os", False),
        ("Bergen", False),
        ("Ruiz Ana", False),
    ],
)
def test_names_that_the_article_does_not_tell_are_dropped(name, told):
    sample = NewsSample(
        key="a", split="test", caption="Bergen", headline="", paragraphs=("Ana\nRuiz left.", "Oslo’s rain.")
    )
    assert in_article(sample, [name]) == ((name,) if told else ())
