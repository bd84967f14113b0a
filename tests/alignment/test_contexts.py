"""Contexts: what the model reads of an article, within a budget of words."""

from dataclasses import replace
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ealign_plugin.alignment.contexts import (
    CONTEXTS,
    Budget,
    Context,
    build_context,
    compose,
    context_budget,
    context_strategy,
    register_context,
)
from ealign_plugin.alignment.prompts import Templates, Wording
from ealign_plugin.alignment.selection import Selection, oracle, shared_entities, unrepeated
from ealign_plugin.entities import entity_key, entity_keys, fold
from ealign_plugin.errors import UserError
from tests.alignment.articles import ARTICLES, STORM, article

steady = settings(derandomize=True, deadline=None)

CHOSEN = Selection((2, 4), ("Ana Ruiz", "OSLO"))
STRATEGIES = list(CONTEXTS)
SELECTING = [name for name, strategy in CONTEXTS.items() if strategy.needs_selection]
READ_ONCE = [
    name for name, strategy in CONTEXTS.items() if strategy.needs_selection or strategy.reads_caption
]
BUDGETED = [strategy for strategy in STRATEGIES if strategy not in ("none", "full")]


def budget(words, length=None, **templates):
    """A budget of words, or of what another function counts; names are listed as the templates say."""
    wording = Wording(Templates(**templates))
    return context_budget(wording, words=words, tokens=words if length else None, count_tokens=length)


def context(strategy, words, selection=CHOSEN, sample=STORM, **options):
    return build_context(sample, strategy, budget(words, **options), selection)


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


def test_a_repeated_sentence_is_read_where_it_was_selected():
    twice = article("[Oslo/GPE]", "[Oslo/GPE].", "Rain.", "[Oslo/GPE].")
    assert context("refined", 10, Selection((2,)), twice) == Context("Oslo.", (2,))
    assert context("supplemented", 10, Selection((2,)), twice) == Context("Rain. Oslo.", (1, 2))


# Whatever the article


def first_of_each(sample, indexes):
    """The sentences without those that repeat another."""
    return tuple(unrepeated(indexes, lambda index: sample.sentences[index].text))


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
    return build_context(sample, strategy, budget(words, **options), selection)


@steady
@given(questions(), st.sampled_from(BUDGETED), WORDS, SEPARATORS, LABELS)
def test_the_budget_is_never_exceeded(question, strategy, words, separator, label):
    made = read(question, strategy, words, separator=separator, names_label=label)
    assert len(made.text.split()) <= words
    parts = made.text.split(separator)  # a line break between names stays, all other white space is folded
    assert parts == [" ".join(part.split()) for part in parts]


@steady
@given(questions(), st.sampled_from(STRATEGIES), WORDS)
def test_the_sentences_stand_in_article_order_whole_and_each_once(question, strategy, words):
    made = read(question, strategy, words)
    assert list(made.sentences) == sorted(set(made.sentences))
    sentences = " ".join(question[0].sentences[index].text for index in made.sentences)
    text, mark, names = made.text.partition("Names:")
    if text.strip() != sentences:  # one sentence, too long for what the names leave
        assert len(made.sentences) == 1 and sentences.startswith(text.strip())
        assert len(sentences.split()) > words - len((mark + names).split())


@steady
@given(questions(), st.sampled_from(BUDGETED), WORDS)
def test_an_article_with_a_sentence_gives_something_to_read(question, strategy, words):
    assert bool(read(question, strategy, words).sentences) == bool(question[0].sentences)


@steady
@given(questions(), WORDS)
def test_refined_reads_only_what_was_selected_the_first_of_it(question, words):
    chosen = first_of_each(question[0], question[1].sentences)
    made = read(question, "refined", words)
    assert made.sentences == chosen[: len(made.sentences)] or not chosen


@steady
@given(questions(), WORDS)
def test_supplemented_shows_the_first_names_in_half_of_the_budget(question, words):
    made = read(question, "supplemented", words)
    _, mark, names = made.text.partition("Names: ")
    shown = names.removesuffix(".").split("; ") if mark else []
    assert shown == list(question[1].entities[: len(shown)])
    assert len((mark + names).split()) <= words / 2


@steady
@given(questions())
def test_with_room_for_all_supplemented_is_the_article_and_the_names(question):
    made = read(question, "supplemented", 1000)
    texts = [fold(sentence.text) for sentence in question[0].sentences]
    assert sorted(texts[index] for index in made.sentences) == sorted(set(texts))
    assert set(first_of_each(question[0], question[1].sentences)) <= set(made.sentences)
    assert all(name in made.text for name in question[1].entities)


@steady
@given(questions(), st.sampled_from(STRATEGIES))
def test_with_room_for_all_no_context_shows_more_of_the_captions_names_than_the_oracle(question, strategy):
    def shown(strategy):
        text = read(question, strategy, 1000).text.casefold()
        return {key for key in entity_keys(question[0].caption_entities) if key in text}

    assert shown("oracle") >= shown(strategy)
    assert shown("oracle") == {entity_key(name) for name in shared_entities(question[0])}


@steady
@given(questions(), WORDS)
def test_the_oracle_needs_no_selection(question, words):
    sample = question[0]
    assert read(question, "oracle", words) == build_context(sample, "oracle", budget(words))
    if chosen := oracle(sample).sentences:
        assert set(read(question, "oracle", words).sentences) <= set(chosen)


# Around the photo


def pages(*paragraphs, headline="", position=None):
    """An article of paragraphs, each a list of sentences; the photo stands before one of them."""
    made = [article("[Oslo/GPE]", *sentences) for sentences in paragraphs]
    return replace(
        article("[Oslo/GPE]"),
        headline=headline,
        image_position=position,
        paragraphs=tuple(chain.from_iterable(page.paragraphs for page in made)),
        sentences=tuple(replace(s, paragraph=i) for i, page in enumerate(made) for s in page.sentences),
    )


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


# Other budgets


def letters(text):
    """A text's length; what joins two sentences costs one more."""
    return len(text)


def tokens(text):
    """Word pieces of up to four letters, and a mark in front as some tokenizers set it."""
    return 1 + sum(-(-len(word) // 4) for word in text.split())


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
    made = context("supplemented", 70, length=letters)
    assert made == Context("Ana Ruiz’s talk began. OSLO slept. Names: Ana Ruiz; OSLO.", (2, 4))
    assert context("supplemented", 40, length=letters).text == "Ana Ruiz’s talk began. Names: Ana Ruiz."
    assert context("supplemented", 30, length=letters).text == "Ana Ruiz’s talk began."


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
    made = context("supplemented", 9, Selection((2,)), twice)
    assert made == Context("Rain fell. OSLO.", (1, 2))


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


# Whatever the article, the photo's place and the measure


@st.composite
def placed(draw):
    """A question whose article has a headline, paragraphs and a photo somewhere in them or nowhere."""
    sample, selection = draw(questions())
    starts = sorted(draw(st.sets(st.sampled_from(range(len(sample.sentences)))))) if sample.sentences else []
    sentences = tuple(
        replace(sentence, paragraph=sum(start <= i for start in starts if start))
        for i, sentence in enumerate(sample.sentences)
    )
    count = sentences[-1].paragraph + 1 if sentences else 0
    paragraphs = tuple(" ".join(s.text for s in sentences if s.paragraph == p) for p in range(count))
    return replace(
        sample,
        headline=draw(st.sampled_from(["", "Storm", "Rain in the old town"])),
        image_position=draw(st.none() | st.integers(0, count)),
        paragraphs=paragraphs,
        sentences=sentences,
    ), selection


MEASURES = st.sampled_from([letters, tokens, lambda text: len(text.split())])


@steady
@given(placed(), st.sampled_from(BUDGETED), st.integers(1, 120), MEASURES)
def test_no_budget_is_exceeded_by_any_measure(question, strategy, words, length):
    made = read(question, strategy, words, length=length)
    assert length(made.text) <= words
    assert made == read(question, strategy, words, length=length)


@steady
@given(placed(), st.sampled_from(BUDGETED), st.integers(1, 120), MEASURES)
def test_what_is_read_is_the_articles_in_order_and_whole(question, strategy, words, length):
    sample = question[0]
    made = read(question, strategy, words, length=length, names_label="<")
    assert list(made.sentences) == sorted(set(made.sentences))
    texts = [sample.sentences[index].text for index in made.sentences]
    text = made.text.partition("<")[0].strip()
    headlines = {"", sample.headline} if strategy == "around_image" else {""}
    whole = {" ".join(filter(None, [headline, *texts])) for headline in headlines}
    if text not in whole:  # one sentence, too long for what the names or the headline leave
        assert len(texts) == 1 and any(long.startswith(text) for long in whole)
        assert length(made.text.replace(text, max(whole, key=len))) > words
    if strategy in READ_ONCE:
        assert len({fold(text) for text in texts}) == len(texts)


@steady
@given(placed(), WORDS)
def test_around_the_photo_nothing_nearer_is_left_out(question, words):
    sample, _ = question
    sentences = read(question, "around_image", words).sentences
    if sample.image_position is None:
        assert read(question, "around_image", words) == read(question, "head", words)
    elif sentences:
        assert sentences[0] == 0
        left_out = set(range(len(sample.sentences))) - set(sentences)
        for side in (-1, 1):
            near = [
                i
                for i, s in enumerate(sample.sentences)
                if s.paragraph and (s.paragraph < sample.image_position) == (side < 0)
            ][::side]
            read_here = [i not in left_out for i in near]
            assert read_here == sorted(read_here, reverse=True)


@steady
@given(placed(), WORDS)
def test_the_oracles_halves_together_are_no_more_than_the_oracle(question, words):
    sample = question[0]
    positive = first_of_each(sample, oracle(sample).sentences)
    sentences = read(question, "oracle_sentences", words).sentences
    assert sentences == positive[: len(sentences)] or not positive
    assert "Names:" not in read(question, "oracle_sentences", words).text
    beside = read(question, "oracle_entities", words).text.partition("Names:")[2]
    assert beside == read(question, "oracle", words).text.partition("Names:")[2]


# Errors


@pytest.mark.parametrize("strategy", SELECTING)
def test_a_missing_selection(strategy):
    with pytest.raises(UserError, match=f"context '{strategy}' needs a selection from pass 1"):
        build_context(STORM, strategy, Budget(10))


def test_an_unknown_strategy():
    with pytest.raises(UserError, match="context strategy 'heads' is unknown; choose from none, head, full"):
        build_context(STORM, "heads", Budget(10))
    assert context_strategy("head") is CONTEXTS["head"]


@pytest.mark.parametrize("words", [0, -3])
def test_a_budget_of_no_words(words):
    with pytest.raises(UserError, match=f"^context: a budget of at least 1 was expected, found {words}$"):
        Budget(words)


def test_a_budget_of_tokens_needs_their_counter():
    with pytest.raises(ValueError, match="needs count_tokens"):
        context_budget(Wording(), tokens=9)
    assert context_budget(Wording(), words=3, tokens=9, count_tokens=len).fits("123456789")


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
