"""Contexts: what the model reads of an article, within a budget of words."""

import pytest
from articles import ARTICLES, STORM, article
from hypothesis import given
from hypothesis import strategies as st

from ealign_plugin.alignment.context import NEED_SELECTION, STRATEGIES, Context, build_context, check_strategy
from ealign_plugin.alignment.selection import Selection, oracle, shared_entities
from ealign_plugin.entities import entity_key, entity_keys
from ealign_plugin.errors import UserError

CHOSEN = Selection((2, 4), ("Ana Ruiz", "OSLO"))
BUDGETED = [strategy for strategy in STRATEGIES if strategy not in ("none", "full")]


def context(strategy, words, selection=CHOSEN, sample=STORM, **options):
    return build_context(sample, strategy, words=words, selection=selection, **options)


@pytest.mark.parametrize(
    ("strategy", "words", "text", "sentences"),
    [
        ("none", 20, "", ()),
        ("head", 4, "It rained on Monday.", (0,)),
        ("head", 8, "It rained on Monday. Bo Lind left Bergen.", (0, 1)),
        ("head", 11, "It rained on Monday. Bo Lind left Bergen.", (0, 1)),  # the third would be cut
        ("refined", 20, "Ana Ruiz’s talk began. OSLO slept.", (2, 4)),
        ("refined", 5, "Ana Ruiz’s talk began.", (2,)),
        ("supplemented", 9, "Ana Ruiz’s talk began. Names: Ana Ruiz; OSLO.", (2,)),
        ("supplemented", 10, "Ana Ruiz’s talk began. OSLO slept. Names: Ana Ruiz; OSLO.", (2, 4)),
        (
            "supplemented",
            14,
            "It rained on Monday. Ana Ruiz’s talk began. OSLO slept. Names: Ana Ruiz; OSLO.",
            (0, 2, 4),
        ),
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
    cut = context("supplemented", 8, Selection((3,), ("Ana Ruiz", "OSLO")))
    assert cut == Context("Nobody came, not even Names: Ana Ruiz; OSLO.", (3,))


def test_names_take_half_of_the_budget_at_most():
    names = tuple("ABCDEFGH")
    assert context("supplemented", 8, Selection((), names)).text == "It rained on Monday. Names: A; B; C."
    assert context("supplemented", 3, Selection((), names)).text == "It rained on"
    # The words of the separator count too.
    joined = context("supplemented", 8, Selection((), names), names_label="", separator=" and also ")
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


def test_repeated_sentences_are_read_where_they_were_selected():
    twice = article("[Oslo/GPE]", "[Oslo/GPE].", "Rain.", "[Oslo/GPE].")
    assert context("refined", 10, Selection((0, 2)), twice) == Context("Oslo. Oslo.", (0, 2))
    assert context("supplemented", 10, Selection((2,)), twice) == Context("Oslo. Rain. Oslo.", (0, 1, 2))


# Whatever the article


@st.composite
def questions(draw):
    """An article with anything selected in it."""
    sample = draw(ARTICLES)
    indexes = draw(st.sets(st.sampled_from(range(len(sample.sentences))))) if sample.sentences else ()
    names = [e.text for sentence in sample.sentences for e in sentence.entities]
    entities = draw(st.lists(st.sampled_from(names), unique=True)) if names else ()
    return sample, Selection(tuple(sorted(indexes)), tuple(entities))


WORDS = st.integers(1, 30)
SEPARATORS = st.sampled_from(["; ", " and also ", "\n"])
LABELS = st.sampled_from(["", "Names:", "These names may help: "])


def read(question, strategy, words, **options):
    sample, selection = question
    return build_context(sample, strategy, words=words, selection=selection, **options)


@given(questions(), st.sampled_from(BUDGETED), WORDS, SEPARATORS, LABELS)
def test_the_budget_is_never_exceeded(question, strategy, words, separator, label):
    made = read(question, strategy, words, separator=separator, names_label=label)
    assert len(made.text.split()) <= words
    assert made.text == " ".join(made.text.split())


@given(questions(), st.sampled_from(STRATEGIES), WORDS)
def test_the_sentences_stand_in_article_order_whole_and_each_once(question, strategy, words):
    made = read(question, strategy, words)
    assert list(made.sentences) == sorted(set(made.sentences))
    sentences = " ".join(question[0].sentences[index].text for index in made.sentences)
    text, mark, names = made.text.partition("Names:")
    if text.strip() != sentences:  # one sentence, too long for what the names leave
        assert len(made.sentences) == 1 and sentences.startswith(text.strip())
        assert len(sentences.split()) > words - len((mark + names).split())


@given(questions(), st.sampled_from(BUDGETED), WORDS)
def test_an_article_with_a_sentence_gives_something_to_read(question, strategy, words):
    assert bool(read(question, strategy, words).sentences) == bool(question[0].sentences)


@given(questions(), WORDS)
def test_refined_reads_only_what_was_selected_the_first_of_it(question, words):
    chosen = question[1].sentences
    made = read(question, "refined", words)
    assert made.sentences == chosen[: len(made.sentences)] or not chosen


@given(questions(), WORDS)
def test_supplemented_shows_the_first_names_in_half_of_the_budget(question, words):
    made = read(question, "supplemented", words)
    _, mark, names = made.text.partition("Names: ")
    shown = names.removesuffix(".").split("; ") if mark else []
    assert shown == list(question[1].entities[: len(shown)])
    assert len((mark + names).split()) <= words / 2


@given(questions())
def test_with_room_for_all_supplemented_is_the_article_and_the_names(question):
    made = read(question, "supplemented", 1000)
    assert made.sentences == tuple(range(len(question[0].sentences)))
    assert all(name in made.text for name in question[1].entities)


@given(questions(), st.sampled_from(STRATEGIES))
def test_with_room_for_all_no_context_shows_more_of_the_captions_names_than_the_oracle(question, strategy):
    def shown(strategy):
        text = read(question, strategy, 1000).text.casefold()
        return {key for key in entity_keys(question[0].caption_entities) if key in text}

    assert shown("oracle") >= shown(strategy)
    assert shown("oracle") == {entity_key(name) for name in shared_entities(question[0])}


@given(questions(), WORDS)
def test_the_oracle_needs_no_selection(question, words):
    sample = question[0]
    assert read(question, "oracle", words) == build_context(sample, "oracle", words=words)
    if chosen := oracle(sample).sentences:
        assert set(read(question, "oracle", words).sentences) <= set(chosen)


# Errors


@pytest.mark.parametrize("strategy", sorted(NEED_SELECTION))
def test_a_missing_selection(strategy):
    with pytest.raises(UserError, match=f"context '{strategy}' needs a selection from pass 1"):
        build_context(STORM, strategy, words=10)


def test_an_unknown_strategy():
    with pytest.raises(UserError, match="context strategy 'heads' is unknown; choose from none, head, full"):
        build_context(STORM, "heads", words=10)
    assert check_strategy("head") == "head"


@pytest.mark.parametrize("strategy", BUDGETED)
@pytest.mark.parametrize("words", [0, -3])
def test_a_budget_of_no_words(strategy, words):
    with pytest.raises(
        UserError, match=f"context '{strategy}': a budget of at least 1 word .* found {words}"
    ):
        context(strategy, words)
