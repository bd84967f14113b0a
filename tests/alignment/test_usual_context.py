"""The usual context: what is selected joins it, and falls back to it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ealign_plugin.alignment.contexts import (
    CONTEXTS,
    Budget,
    Context,
    build_context,
    compose,
    register_context,
)
from ealign_plugin.alignment.selection import Selection, unrepeated
from ealign_plugin.errors import UserError
from tests.alignment.articles import article
from tests.alignment.factories import BUDGETED, budget, context, pages
from tests.alignment.test_context_properties import MEASURES, placed, read, steady

PAGES = (["First."], ["Two a.", "Two b."], ["Three a.", "Three b."], ["Four a.", "Four b."], ["Five."])
PLACED = pages(*PAGES, headline="Storm", position=3)
LAST = Selection((7,), ("Ana", "Bo"))  # "Five."


# Over the head


@pytest.mark.parametrize(
    ("words", "text", "sentences"),
    [
        # Four of nine words are the head's; of the other five two may be names, and none fits.
        (9, "It rained on Monday. Ana Ruiz’s talk began.", (0, 2)),
        (10, "It rained on Monday. Ana Ruiz’s talk began. OSLO slept.", (0, 2, 4)),
        (13, "It rained on Monday. Ana Ruiz’s talk began. OSLO slept. Names: Ana Ruiz.", (0, 2, 4)),
        (
            18,
            "It rained on Monday. Bo Lind left Bergen. Ana Ruiz’s talk began. OSLO slept. "
            "Names: Ana Ruiz; OSLO.",
            (0, 1, 2, 4),
        ),
    ],
)
def test_the_selected_sentences_and_names_join_the_head(words, text, sentences):
    assert context("supplemented", words) == Context(text, sentences)


def test_what_is_left_of_the_budget_goes_back_to_the_head():
    assert context("supplemented", 10, Selection((5,))) == Context(
        "It rained on Monday. Kai Moe won.", (0, 5)
    )
    assert context("supplemented", 11, Selection((5,))).sentences == (0, 1, 5)


def test_the_part_of_the_usual_context_is_an_option():
    assert context("supplemented", 9, usual_words=0).sentences == (2,)
    assert context("supplemented", 8, usual_words=8) == context("head", 8)


def test_an_article_that_is_shorter_than_its_part_leaves_the_rest_to_what_is_selected():
    short = article("[Oslo/GPE]", "Rain.", "[Oslo/GPE] slept on and on.")
    assert context("supplemented", 6, Selection((1,)), short, usual_words=5).sentences == (0, 1)


# Over the neighbourhood of the photo


def test_headline_and_neighbourhood_stay():
    alone = context("around_image", 6, sample=PLACED)
    assert alone == Context("Storm First. Three a. Three b.", (0, 3, 4))
    made = context("supplemented", 10, LAST, PLACED, usual="around_image")
    assert made == Context("Storm First. Three a. Three b. Five. Names: Ana.", (0, 3, 4, 7))
    assert set(alone.sentences) <= set(made.sentences)
    made = context("supplemented", 12, LAST, PLACED, usual="around_image")  # more of the neighbourhood
    assert made.text == "Storm First. Three a. Three b. Four a. Five. Names: Ana; Bo."


def test_a_headline_stays_that_the_usual_context_would_show():
    sample = pages(["Rain fell."], ["Oslo slept."], headline="Storm in the old town", position=2)
    for words in (10, 12):
        assert context("around_image", words, sample=sample).headline == sample.headline
        made = context("supplemented", words, Selection((1,)), sample, usual="around_image", usual_words=0)
        assert made.text.startswith("Storm in the old town") and 1 in made.sentences
    made = context("supplemented", 9, Selection((1,)), sample, usual="around_image")
    assert made == Context("Rain fell. Oslo slept.", (0, 1))  # half of nine words are four


@pytest.mark.parametrize("strategy", ["refined", "supplemented", "oracle", "supplemented_oracle"])
@pytest.mark.parametrize("words", [4, 6, 9, 50])
def test_where_nothing_is_selected_the_usual_context_is_read(strategy, words):
    made = context(strategy, words, Selection(), PLACED, usual="around_image")
    assert made == context("around_image", words, sample=PLACED)


def test_the_oracles_names_beside_the_usual_context():
    sample = replace(PLACED, caption_entities=article("[Five/PERSON]").caption_entities)
    named = replace(article("", "[Five/PERSON].").sentences[0], paragraph=4)
    sample = replace(sample, sentences=(*sample.sentences[:-1], named))
    made = context("oracle_entities", 8, sample=sample, usual="around_image")
    assert made.text == "Storm First. Three a. Three b. Names: Five."


# The oracle over the usual context


def test_the_oracle_of_the_supplement_reads_the_usual_context_too():
    assert context("oracle", 18).sentences == (2, 4)
    both = context("supplemented_oracle", 18)
    assert both.sentences == (0, 1, 2, 4) and both.text.endswith("OSLO slept. Names: Monday; Ana Ruiz.")
    alone = context("supplemented_oracle_sentences", 18)
    assert alone.text == "It rained on Monday. Bo Lind left Bergen. Ana Ruiz’s talk began. OSLO slept."
    assert context("supplemented_oracle", 17, usual="none").text == (
        "Ana Ruiz’s talk began. OSLO slept. Names: Monday; Ana Ruiz."
    )


# Best first


SCORED = Selection((0, 2, 3), scores=(0.51, 0.52, 0.99))
"""Three sentences of eight words each."""
EIGHTS = article("", *(f"{name} b c d e f g h." for name in "ABCD"))


def test_over_budget_the_best_scored_sentences_stay_in_article_order():
    assert context("refined", 20, SCORED, EIGHTS).sentences == (2, 3)
    assert context("refined", 20, SCORED, EIGHTS).text == "C b c d e f g h. D b c d e f g h."
    assert context("refined", 8, SCORED, EIGHTS).sentences == (3,)
    assert context("refined", 24, SCORED, EIGHTS).sentences == (0, 2, 3)
    assert context("refined", 3, SCORED, EIGHTS) == Context("D b c", (3,))  # cut: the best alone is too long
    assert context("supplemented", 20, SCORED, EIGHTS).sentences == (0, 3)


def test_without_scores_the_first_sentences_stay():
    assert context("refined", 20, Selection((0, 2, 3)), EIGHTS).sentences == (0, 2)
    assert context("refined", 20, Selection((0, 2, 3), scores=(0.7, 0.7, 0.7)), EIGHTS).sentences == (0, 2)


def test_a_repeated_sentence_keeps_the_score_of_the_one_that_is_read():
    twice = article("", "Rain.", "Snow.", "rain.")
    made = context("refined", 1, Selection((0, 1, 2), scores=(0.6, 0.7, 0.6)), twice)
    assert made == Context("Snow.", (1,))


def test_scores_are_those_of_the_sentences():
    with pytest.raises(ValueError, match="a score of each of 2 sentences was expected, found 1"):
        Selection((1, 2), scores=(0.5,))


@steady
@given(placed(), st.integers(1, 30), st.data())
def test_no_sentence_that_was_left_out_is_better_than_one_that_is_read(question, words, data):
    sample, selection = question
    chosen = tuple(unrepeated(selection.sentences, lambda index: sample.sentences[index].text))
    scores = tuple(data.draw(st.floats(0.5, 1)) for _ in chosen)
    made = read((sample, Selection(chosen, scores=scores)), "refined", words)
    of = dict(zip(chosen, scores, strict=True))
    if chosen:
        left_out = [of[index] for index in chosen if index not in made.sentences]
        assert max(left_out, default=0) <= min(of[index] for index in made.sentences)


# Whatever the article, the usual context, its part and the measure


USUAL = ["none", "head", "around_image", "full"]


@steady
@given(placed(), st.sampled_from(BUDGETED), st.sampled_from(USUAL), st.integers(1, 90), MEASURES, st.data())
def test_over_any_usual_context_the_budget_is_kept(question, strategy, usual, words, length, data):
    least = data.draw(st.none() | st.integers(0, words))
    made = read(question, strategy, words, length=length, usual=usual, usual_words=least)
    assert length(made.text) <= words or not made.text
    assert list(made.sentences) == sorted(set(made.sentences))


@steady
@given(placed(), st.sampled_from(["head", "around_image"]), st.integers(2, 60), st.data())
def test_what_the_usual_context_reads_of_its_part_stays(question, usual, words, data):
    sample, selection = question
    least = data.draw(st.integers(0, words))
    alone = build_context(sample, usual, budget(words))
    made = read(question, "supplemented", words, usual=usual, usual_words=least)
    headline = alone.headline if alone.text.startswith(alone.headline) else ""
    assert made.text.startswith(headline)
    part = least - len(headline.split())
    for index in unrepeated(alone.wanted, lambda index: sample.sentences[index].text):
        part -= len(sample.sentences[index].text.split())
        if part < 0:
            break
        assert index in made.sentences


# Strategies of other packages


def test_a_strategy_of_another_package_is_the_usual_context():
    @register_context("test_backwards")
    def backwards(sample, budget, selection):
        return compose(sample, range(len(sample.sentences))[::-1], budget, headline="Last:")

    @register_context("test_of_its_own")
    def of_its_own(sample, budget, selection):
        return Context(sample.sentences[1].text, (1,))

    nothing = article("")
    try:
        assert (
            context("refined", 6, Selection(), usual="test_backwards").text
            == "Last: OSLO slept. Kai Moe won."
        )
        made = context("supplemented", 9, Selection((1,)), usual="test_backwards")
        assert made == Context("Last: Bo Lind left Bergen. Kai Moe won.", (1, 5))
        assert context("supplemented", 20, Selection((5,)), usual="test_of_its_own").sentences == (1, 5)
        assert context("refined", 6, Selection(), nothing, usual="test_backwards").text == "Last:"
    finally:
        CONTEXTS.unregister("test_backwards")
        CONTEXTS.unregister("test_of_its_own")


def test_a_strategy_whose_own_fallback_is_the_usual_context():
    """It wants no sentence of this article, and reads the head."""

    @register_context("test_picky")
    def picky(sample, budget, selection):
        return compose(sample, (), budget)

    try:
        assert context("refined", 4, Selection(), usual="test_picky") == context("head", 4)
    finally:
        CONTEXTS.unregister("test_picky")


# Errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"usual": "heads"}, "^run.usual_context: unknown context strategy 'heads'; did you mean 'head'"),
        ({"usual": "refined"}, "^run.usual_context: 'refined' needs pass 1; choose another context"),
        ({"usual": "oracle"}, "^run.usual_context: 'oracle' reads the reference caption; choose another"),
        ({"usual_least": 10}, "^run.usual_words: found 10, expected 0 to 9, a context's budget$"),
        ({"usual_least": -1}, "^run.usual_words: found -1, expected 0 to 9"),
    ],
)
def test_a_usual_context_that_cannot_be_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        Budget(9, **options)
    assert Budget(9).usual_part == 4 and Budget(9, usual_least=0).usual_part == 0
