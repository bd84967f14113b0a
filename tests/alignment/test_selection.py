"""What the caption says about the article's sentences, and what pass 1 chooses."""

import doctest
import random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ealign_plugin.alignment import selection
from ealign_plugin.alignment.selection import (
    Selection,
    count_words,
    first_within,
    in_article,
    noisy_oracle,
    oracle,
    parse_entities,
    select_entities,
    select_sentences,
    sentence_labels,
    shared_entities,
    unrepeated,
)
from ealign_plugin.entities import VISUAL_LABELS, entity_key, fold
from ealign_plugin.errors import UserError
from ealign_plugin.news import NewsSample
from tests.alignment.articles import ARTICLES, STORM, article

steady = settings(derandomize=True, deadline=None)

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


@steady
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


@steady
@given(ARTICLES, SEEDS)
def test_without_mistakes_the_noisy_oracle_is_the_oracle(sample, rng):
    assert noisy_oracle(sample, rng, miss=0, extra=0) == oracle(sample)


@steady
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


def test_wrong_names_are_others_of_the_article_where_it_has_them():
    chosen = noisy_oracle(STORM, random.Random(1), miss=0, extra=0, extra_names=1)
    assert chosen.entities == ("Monday", "Bo Lind", "Bergen", "Ana Ruiz", "OSLO", "Kai Moe")
    few = article("[Oslo/GPE]", "[Oslo/GPE].", "Rain.")
    assert noisy_oracle(few, random.Random(1), miss=0, extra=0, extra_names=1).entities == ("Oslo",)


def test_wrong_names_are_as_frequent_as_asked_and_leave_the_other_draws_as_they_were():
    draws = range(600)
    with_names = [noisy_oracle(STORM, random.Random(d), miss=0.2, extra=0.5, extra_names=0.4) for d in draws]
    without = [noisy_oracle(STORM, random.Random(d), miss=0.2, extra=0.5) for d in draws]
    assert [one.sentences for one in with_names] == [one.sentences for one in without]
    right = set(oracle(STORM).entities)
    assert [tuple(name for name in one.entities if name in right) for one in with_names] == [
        one.entities for one in without
    ]
    wrong = sum(len(set(one.entities) - right) for one in with_names)
    assert wrong / len(draws) == pytest.approx(3 * 0.4, rel=0.1)


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


@steady
@given(SCORES, st.none() | st.sampled_from([0.0, 0.5, 0.7]), st.none() | st.integers(0, 9))
def test_the_selection_is_in_order_and_nothing_better_is_left_out(scores, threshold, top_k):
    chosen = select_sentences(scores, threshold=threshold, top_k=top_k)
    passing = [i for i, score in enumerate(scores) if threshold is None or score >= threshold]
    assert list(chosen) == sorted(set(chosen))
    assert len(chosen) == min(len(passing), len(scores) if top_k is None else top_k)
    assert all((scores[i], -i) > (scores[j], -j) for i in chosen for j in set(passing) - set(chosen))


@steady
@given(ARTICLES)
def test_perfect_scores_select_what_the_oracle_selects(sample):
    assert select_sentences([float(label) for label in sentence_labels(sample)]) == oracle(sample).sentences


# Pass 1, within a budget of words

SCORED = [0.1, 0.9, 0.5, 0.9, 0.7]
TEXTS = ["It rained.", "Ana Ruiz spoke.", "Oslo.", "She left.", "Bo Lind waited there for long."]


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        ({"words": 5}, (1, 3)),
        ({"words": 4}, (1,)),  # 3 is as good as 1 and comes later
        ({"words": 10}, (1, 3)),  # 4 is next and does not fit: the budget is full
        ({"words": 11}, (1, 3, 4)),
        ({"words": 12, "threshold": 0.8}, (1, 3)),
        ({"words": 12, "top_k": 1}, (1,)),
        ({"words": 2}, (1,)),  # one is always read
        ({"words": 99, "threshold": None}, (0, 1, 2, 3, 4)),
        ({"words": 99, "threshold": 1.1}, ()),
        ({"words": 9, "length": len}, (1,)),
        ({"words": 24, "length": len}, (1, 3)),
    ],
)
def test_the_best_sentences_until_the_budget_is_full(options, chosen):
    assert select_sentences(SCORED, texts=TEXTS, **options) == chosen


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        ({}, (0, 1)),
        ({"threshold": 0.8}, (1, 2)),  # the first Oslo is below
        ({"top_k": 1}, (1,)),
        ({"words": 2}, (1,)),
        ({"words": 3}, (0, 1)),
        ({"words": 5}, (0, 1)),
    ],
)
def test_a_repeated_sentence_is_selected_once(options, chosen):
    assert (
        select_sentences([0.7, 0.9, 0.8], texts=["Oslo “won”.", "Rain.", 'OSLO  "won".'], **options) == chosen
    )


def test_without_their_texts_repeated_sentences_are_not_known():
    assert select_sentences([0.9, 0.9]) == (0, 1)
    assert select_sentences([0.9, 0.9], texts=["Oslo.", "Oslo."]) == (0,)


@steady
@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.2, 0.5, 0.7, 1.0]), st.sampled_from(TEXTS)), max_size=8),
    st.none() | st.sampled_from([0.0, 0.5, 0.7]),
    st.none() | st.integers(1, 9),
    st.integers(1, 20),
)
def test_a_budget_keeps_the_best_in_article_order_and_is_not_exceeded(scored, threshold, top_k, words):
    scores, texts = [score for score, _ in scored], [text for _, text in scored]
    limits = {"threshold": threshold, "top_k": top_k, "texts": texts}
    chosen = select_sentences(scores, words=words, **limits)
    passing = select_sentences(scores, **limits)
    assert list(chosen) == sorted(set(chosen))
    assert set(chosen) <= set(passing)
    assert bool(chosen) == bool(passing)
    assert sum(count_words(texts[i]) for i in chosen) <= words or len(chosen) == 1
    assert all((scores[i], -i) > (scores[j], -j) for i in chosen for j in set(passing) - set(chosen))
    if rest := sorted(set(passing) - set(chosen), key=lambda i: (-scores[i], i)):
        assert sum(count_words(texts[i]) for i in (*chosen, rest[0])) > words
    assert len({fold(texts[i]) for i in chosen}) == len(chosen)
    assert chosen == select_sentences(scores, words=words, **limits)


def test_three_thousand_sentences_are_each_measured_once():
    measured = []
    texts = [f"Sentence {i}." for i in range(3000)]
    chosen = select_sentences(
        [i / 3000 for i in range(3000)],
        threshold=None,
        texts=texts,
        words=9000,
        length=lambda text: measured.append(text) or count_words(text),
    )
    assert chosen == tuple(range(3000))
    assert sorted(measured) == sorted(texts)


@pytest.mark.parametrize("words", [0, -1])
def test_a_selection_of_no_words(words):
    with pytest.raises(UserError, match=f"a budget of at least 1 word was expected, found {words}"):
        select_sentences(SCORED, texts=TEXTS, words=words)


def test_words_cannot_be_counted_without_texts():
    with pytest.raises(ValueError, match="texts were expected, none were given"):
        select_sentences(SCORED, words=5)
    with pytest.raises(ValueError, match="a text for each of 5 scores was expected, found 1 texts"):
        select_sentences(SCORED, texts=["Oslo."])


def test_what_was_read_before_is_repeated_too():
    texts = ["Oslo.", "Rain.", "OSLO.", "rain."]
    assert list(unrepeated(range(4), texts.__getitem__)) == [0, 1]
    assert list(unrepeated([3, 2, 0], texts.__getitem__, before=[1])) == [2]


def test_a_budget_is_filled_in_the_order_given():
    sizes = [3, 1, 4, 1].__getitem__
    assert first_within([1, 3, 0, 2], 5, sizes) == ([1, 3, 0], 0)
    assert first_within([2, 1], 3, sizes) == ([2], -1)
    assert first_within([2, 1], 3, sizes, at_least_one=False) == ([], 3)


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
        ("1. Ana Ruiz 2. Oslo 3) U.S.", ["Ana Ruiz", "Oslo", "U.S."]),
        ("Henry 2. Oslo", ["Henry 2. Oslo"]),  # no list: its first item has no number
        ("1. Henry 2. Oslo; Lagos", ["Henry 2. Oslo", "Lagos"]),  # separated already
        ("Ana Ruiz\r\nOslo\r", ["Ana Ruiz", "Oslo"]),
        ("– Ana Ruiz\n· Oslo\n◦ Lagos", ["Ana Ruiz", "Oslo", "Lagos"]),
        ("–Ana Ruiz; Oslo", ["–Ana Ruiz", "Oslo"]),
        ("1. **Ana Ruiz**\n2. **Oslo**.", ["Ana Ruiz", "Oslo"]),
        ("E*TRADE; Sagittarius A*", ["E*TRADE", "Sagittarius A*"]),
        ("Names: Ana Ruiz; Oslo", ["Ana Ruiz", "Oslo"]),
        ("**Entities:** none", []),
        ("CSI: Miami; Oslo", ["CSI: Miami", "Oslo"]),
        ("Ana  \tRuiz; Oslo", ["Ana Ruiz", "Oslo"]),
        ("; ".join(["Oslo"] * 3000), ["Oslo"]),
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


@steady
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


@steady
@given(st.text(alphabet="ab1. ;*-\n•:)", max_size=30))
def test_whatever_is_answered_names_are_clean_and_each_once(answer):
    names = parse_entities(answer, "; ")
    assert all(name == " ".join(name.split()) and ";" not in name for name in names)
    assert len({entity_key(name) for name in names} - {"", "none"}) == len(names)


def test_names_that_were_made_up_are_handed_back():
    told = select_entities(STORM, "1. Ana Ruiz\n2. Lagos\n3. oslo\n4. Bergen.", "; ")
    assert told == (("Ana Ruiz", "oslo", "Bergen"), ("Lagos",))
    assert select_entities(article("Rain."), "Oslo; Lagos", "; ") == ((), ("Oslo", "Lagos"))
    assert select_entities(STORM, "none", "; ") == ((), ())
