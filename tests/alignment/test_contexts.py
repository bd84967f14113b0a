"""Contexts: what each strategy reads of an article, within a budget of words."""

from dataclasses import replace

import pytest

from ealign_plugin.alignment.contexts import (
    CONTEXTS,
    Budget,
    Context,
    build_context,
    compose,
    context_strategy,
    register_context,
)
from ealign_plugin.alignment.selection import Selection
from ealign_plugin.errors import UserError
from tests.alignment.articles import STORM, article
from tests.alignment.factories import STRATEGIES, context, pages

SELECTING = [name for name, strategy in CONTEXTS.items() if strategy.needs_selection]


@pytest.mark.parametrize(
    ("strategy", "words", "text", "sentences"),
    [
        ("none", 20, "", ()),
        ("head", 4, "It rained on Monday.", (0,)),
        ("head", 8, "It rained on Monday. Bo Lind left Bergen.", (0, 1)),
        ("head", 11, "It rained on Monday. Bo Lind left Bergen.", (0, 1)),  # the third would be cut
        ("refined", 20, "Ana Ruiz’s talk began. OSLO slept.", (2, 4)),
        ("refined", 5, "Ana Ruiz’s talk began.", (2,)),
        ("oracle", 20, "Ana Ruiz’s talk began. OSLO slept. Names: Monday; Ana Ruiz; OSLO.", (2, 4)),
    ],
)
def test_strategies(strategy, words, text, sentences):
    assert context(strategy, words) == Context(text, sentences)


def test_full_is_the_whole_article_whatever_the_budget():
    assert context("full", 1) == Context(STORM.paragraphs[0], (0, 1, 2, 3, 4, 5))


def test_a_sentence_is_cut_only_where_it_alone_is_too_long():
    assert context("head", 3) == Context("It rained on", (0,))
    assert context("refined", 1, Selection((4,))) == Context("OSLO", (4,))
    # Four words are left beside the names, the sentence has six.
    cut = context("supplemented", 8, Selection((3,), ("Ana Ruiz", "OSLO")), usual_words=0)
    assert cut == Context("Nobody came, not even Names: Ana Ruiz; OSLO.", (3,))


def test_names_take_half_of_the_budget_at_most():
    names, none = Selection((), tuple("ABCDEFGH")), {"usual_words": 0}
    assert context("supplemented", 8, names, **none).text == "It rained on Monday. Names: A; B; C."
    assert context("supplemented", 3, names, **none).text == "It rained on"
    # The words of the separator count too.
    joined = context("supplemented", 8, names, names_label="", separator=" and also ", **none)
    assert joined.text == "It rained on Monday. A and also B."


@pytest.mark.parametrize("strategy", ["refined", "supplemented"])
@pytest.mark.parametrize("words", [1, 4, 9, 50])
def test_where_nothing_is_selected_the_head_is_read(strategy, words):
    assert context(strategy, words, Selection()) == context("head", words)


def test_where_the_caption_shares_nothing_the_oracle_is_the_head():
    stranger = article("[Kim Berg/PERSON]", "It rained on [Monday/DATE].", "[Bo Lind/PERSON] left.")
    assert context("oracle", 5, sample=stranger) == context("head", 5, sample=stranger)


def test_where_the_caption_shares_only_a_date_the_oracle_adds_it_to_the_head():
    dated = article("On [Monday/DATE].", "Rain fell.", "It was [Monday/DATE].")
    assert context("oracle", 4, sample=dated) == Context("Rain fell. Names: Monday.", (0,))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_empty_article_gives_an_empty_context(strategy):
    assert context(strategy, 10, Selection(), article("[Oslo/GPE]")) == Context("")


@pytest.mark.parametrize("strategy", STRATEGIES[1:])
def test_an_article_of_one_sentence(strategy):
    one = article("Rain.", "Rain fell.")
    assert context(strategy, 10, Selection((0,)), one) == Context("Rain fell.", (0,))


def test_a_repeated_sentence_is_read_where_it_was_selected():
    twice = article("[Oslo/GPE]", "[Oslo/GPE].", "Rain.", "[Oslo/GPE].")
    assert context("refined", 10, Selection((2,)), twice) == Context("Oslo.", (2,))
    assert context("supplemented", 10, Selection((2,)), twice, usual_words=0) == Context(
        "Rain. Oslo.", (1, 2)
    )


# Around the photo


PAGES = (["First."], ["Two a.", "Two b."], ["Three a.", "Three b."], ["Four a.", "Four b."], ["Five."])


@pytest.mark.parametrize(
    ("words", "text", "sentences"),
    [
        (3, "Storm First.", (0,)),
        (4, "Storm First. Three b.", (0, 4)),  # the nearest before the photo first
        (6, "Storm First. Three a. Three b.", (0, 3, 4)),
        (8, "Storm First. Three a. Three b. Four a.", (0, 3, 4, 5)),  # then the nearest after it
        (10, "Storm First. Three a. Three b. Four a. Four b.", (0, 3, 4, 5, 6)),
        (12, "Storm First. Two b. Three a. Three b. Four a. Four b.", (0, 2, 3, 4, 5, 6)),
        (99, "Storm First. Two a. Two b. Three a. Three b. Four a. Four b. Five.", tuple(range(8))),
    ],
)
def test_around_the_photo_both_ways(words, text, sentences):
    sample = pages(*PAGES, headline="Storm", position=3)
    assert context("around_image", words, sample=sample) == Context(text, sentences)


@pytest.mark.parametrize(
    ("position", "sentences"),
    [(0, (0, 1, 2)), (1, (0, 1, 2)), (2, (0, 1, 2)), (3, (0, 3, 4)), (5, (0, 6, 7)), (None, (0, 1, 2))],
)
def test_the_first_paragraph_and_what_is_next_to_the_photo(position, sentences):
    assert context("around_image", 5, sample=pages(*PAGES, position=position)).sentences == sentences


def test_on_one_side_of_the_photo_there_may_be_more():
    assert context("around_image", 9, sample=pages(*PAGES, position=2)).sentences == (0, 1, 2, 3, 4)
    assert context("around_image", 8, sample=pages(*PAGES, position=5)).sentences == (0, 4, 5, 6, 7)


def test_a_headline_takes_half_of_the_budget_at_most():
    sample = pages(["Rain fell on Oslo."], headline="Storm in \n Oslo", position=0)
    assert context("around_image", 7, sample=sample) == Context("Storm in Oslo Rain fell on Oslo.", (0,))
    assert context("around_image", 6, sample=sample) == Context("Storm in Oslo Rain fell on", (0,))
    assert context("around_image", 5, sample=sample) == Context("Rain fell on Oslo.", (0,))
    assert context("around_image", 9, sample=pages(headline="Storm", position=0)) == Context("Storm")


@pytest.mark.parametrize("words", [1, 4, 9, 50])
def test_where_the_photos_place_is_unknown_the_head_is_read(words):
    sample = pages(*PAGES, headline="Storm")
    assert context("around_image", words, sample=sample) == context("head", words, sample=sample)


# The two halves of the oracle


def test_the_oracles_sentences_without_names():
    assert context("oracle_sentences", 20) == Context("Ana Ruiz’s talk began. OSLO slept.", (2, 4))
    stranger = article("[Kim Berg/PERSON]", "It rained.", "[Bo Lind/PERSON] left.")
    assert context("oracle_sentences", 3, sample=stranger) == context("head", 3, sample=stranger)


def test_the_oracles_names_beside_the_head():
    names = "Names: Monday; Ana Ruiz; OSLO."
    assert context("oracle_entities", 13) == Context(
        f"It rained on Monday. Bo Lind left Bergen. {names}", (0, 1)
    )
    assert context("oracle_entities", 10) == Context(f"It rained on Monday. {names}", (0,))


# Repeated sentences: once where sentences are selected, as it stands where the article is read


@pytest.mark.parametrize(
    ("strategy", "words", "text", "sentences"),
    [
        ("full", 1, "Oslo. Rain fell. OSLO.", (0, 1, 2)),
        ("head", 9, "Oslo. Rain fell. OSLO.", (0, 1, 2)),
        ("refined", 9, "Oslo.", (0,)),
        ("supplemented", 9, "Oslo. Rain fell.", (0, 1)),
        ("oracle_sentences", 9, "Oslo.", (0,)),
        ("around_image", 9, "Oslo. Rain fell. OSLO.", (0, 1, 2)),
        ("oracle", 9, "Oslo. Names: Oslo.", (0,)),
        ("oracle_entities", 9, "Oslo. Rain fell. Names: Oslo.", (0, 1)),
    ],
)
def test_a_sentence_that_the_article_repeats(strategy, words, text, sentences):
    sample = replace(article("[Oslo/GPE]", "[Oslo/GPE].", "Rain fell.", "[OSLO/GPE]."), image_position=0)
    assert context(strategy, words, Selection((0, 2)), sample) == Context(text, sentences)


def test_a_selected_sentence_is_not_read_again_with_the_head():
    twice = article("[Oslo/GPE]", "[Oslo/GPE].", "Rain fell.", "[OSLO/GPE].")
    made = context("supplemented", 9, Selection((2,)), twice, usual_words=0)
    assert made == Context("Rain fell. OSLO.", (1, 2))
    assert context("supplemented", 9, Selection((2,)), twice) == Context("Oslo. Rain fell.", (0, 1))


# Errors


@pytest.mark.parametrize("strategy", SELECTING)
def test_a_missing_selection(strategy):
    with pytest.raises(UserError, match=f"context '{strategy}' needs a selection from pass 1"):
        build_context(STORM, strategy, Budget(10))


def test_an_unknown_strategy():
    with pytest.raises(UserError, match="unknown context strategy 'heads'; .* 'head'. Expected .*full"):
        build_context(STORM, "heads", Budget(10))
    assert context_strategy("head") is CONTEXTS["head"]


# Strategies of other packages


def test_another_package_adds_a_strategy():
    @register_context("test_last")
    def last(sample, budget, selection):
        """The last sentences."""
        assert selection is None
        return compose(sample, range(len(sample.sentences))[::-1], budget)

    assert context("test_last", 5) == Context("OSLO slept. Kai Moe won.", (4, 5))
    assert CONTEXTS["test_last"].__doc__ == "The last sentences."
    assert not CONTEXTS["test_last"].needs_selection and not CONTEXTS["test_last"].reads_caption


def test_a_strategy_that_selects_gets_each_sentence_once():
    twice = article("[Oslo/GPE]", "[Oslo/GPE].", "Rain.", "[OSLO/GPE].")

    @register_context("test_second", needs_selection=True)
    def second(sample, budget, selection):
        return Context(" ".join(sample.sentences[i].text for i in selection.sentences), selection.sentences)

    assert context("test_second", 9, Selection((0, 1, 2)), twice) == Context("Oslo. Rain.", (0, 1))
    with pytest.raises(UserError, match="context 'test_second' needs a selection from pass 1"):
        build_context(twice, "test_second", Budget(9))


def test_a_name_that_another_function_holds_is_refused():
    with pytest.raises(UserError, match="context strategy 'head': registered by ealign_plugin"):
        register_context("head")(lambda sample, budget, selection: Context(""))
    assert context("head", 4) == Context("It rained on Monday.", (0,))
