"""Budgets of contexts: words, tokens or whatever is counted, also in articles of a thousand sentences."""

import pytest

from ealign_plugin.alignment.contexts import Budget, Context, build_context, context_budget
from ealign_plugin.alignment.prompts import Wording
from ealign_plugin.alignment.selection import Selection
from ealign_plugin.errors import UserError
from tests.alignment.articles import article
from tests.alignment.factories import BUDGETED, STRATEGIES, context, letters, pages, tokens

# Other budgets


@pytest.mark.parametrize(
    ("length", "words", "text", "sentences"),
    [
        (letters, 20, "It rained on Monday.", (0,)),
        (letters, 40, "It rained on Monday.", (0,)),  # 20 + 20 letters would fit, 41 do not
        (letters, 41, "It rained on Monday. Bo Lind left Bergen.", (0, 1)),
        (tokens, 7, "It rained on Monday.", (0,)),
        (tokens, 6, "It rained on", (0,)),
        (tokens, 3, "It", (0,)),
        (letters, 1, "I", (0,)),  # a word longer than the budget
        (lambda text: 9 * len(text), 5, "", ()),
    ],
)
def test_the_head_by_another_measure(length, words, text, sentences):
    assert context("head", words, length=length) == Context(text, sentences)


def test_names_by_another_measure():
    def read(number):
        return context("supplemented", number, length=letters, usual_words=0)

    assert read(70) == Context("Ana Ruiz’s talk began. OSLO slept. Names: Ana Ruiz; OSLO.", (2, 4))
    assert read(40).text == "Ana Ruiz’s talk began. Names: Ana Ruiz."
    assert read(30).text == "Ana Ruiz’s talk began."


# Long articles


@pytest.mark.parametrize("strategy", [strategy for strategy in STRATEGIES if strategy != "none"])
@pytest.mark.parametrize("words", [600, 9_000, 100_000])
def test_the_sentences_of_a_long_article_are_measured_a_few_times_at_most(strategy, words):
    text = [[f"[Oslo/GPE] sentence {i}.", "Rain."] for i in range(1500)]
    sample = pages(*text, headline="Storm", position=700)
    measured = 0

    def length(text):
        nonlocal measured
        measured += len(text)
        return len(text.split())

    made = build_context(sample, strategy, Budget(words, length), Selection(tuple(range(0, 3000, 2))))
    assert made.sentences
    assert measured <= 4 * sum(map(len, sample.paragraphs))


@pytest.mark.parametrize("strategy", BUDGETED)
def test_one_line_without_full_stops_is_cut(strategy):
    line = article("[Oslo/GPE]", " ".join(["[Oslo/GPE]", "rain"] * 5_000))
    made = context(strategy, 600, Selection((0,)), line)
    assert made.text.startswith("Oslo rain Oslo") and made.sentences == (0,)
    assert 598 <= len(made.text.split()) <= 600
    unspaced = article("[Oslo/GPE]", "雨" * 5_000)
    assert context(strategy, 600, Selection((0,)), unspaced, length=letters) == Context("雨" * 600, (0,))


# Errors


@pytest.mark.parametrize("words", [0, -3])
def test_a_budget_of_no_words(words):
    with pytest.raises(UserError, match=f"^context: a budget of at least 1 was expected, found {words}$"):
        Budget(words)


def test_a_budget_of_tokens_needs_their_counter():
    with pytest.raises(ValueError, match="needs count_tokens"):
        context_budget(Wording(), tokens=9)
    assert context_budget(Wording(), words=3, tokens=9, count_tokens=len).fits("123456789")
