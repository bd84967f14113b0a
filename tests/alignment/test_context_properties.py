"""What holds of every context, whatever the article, the photo's place and the measure."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from ealign_plugin.alignment.contexts import CONTEXTS, build_context
from ealign_plugin.alignment.selection import Selection, oracle, shared_entities, unrepeated
from ealign_plugin.entities import entity_key, entity_keys, fold
from tests.alignment.articles import ARTICLES
from tests.alignment.factories import BUDGETED, STRATEGIES, budget, letters, tokens

steady = settings(derandomize=True, deadline=None)
READ_ONCE = [
    name for name, strategy in CONTEXTS.items() if strategy.needs_selection or strategy.reads_caption
]


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
@given(questions(), WORDS, st.none() | st.integers(0, 30))
def test_supplemented_shows_the_first_names_in_half_of_what_the_usual_context_leaves(question, words, usual):
    usual = usual if usual is None else min(usual, words)
    made = read(question, "supplemented", words, usual_words=usual)
    _, mark, names = made.text.partition("Names: ")
    shown = names.removesuffix(".").split("; ") if mark else []
    assert shown == list(question[1].entities[: len(shown)])
    assert len((mark + names).split()) <= (words - (words // 2 if usual is None else usual)) / 2


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
