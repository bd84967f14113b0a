"""The data contract: what a sample looks like as JSON, and what is said of a broken one."""

import json
from copy import deepcopy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ealign_plugin.errors import UserError
from ealign_plugin.news import SCHEMA_VERSION, SPLITS, Entity, NewsSample, Sentence

SAMPLE = NewsSample(
    key="oslo_0",
    split="train",
    source="by hand",
    article_id="oslo",
    image_position=1,
    headline="Storm in Oslo",
    headline_entities=(Entity("Oslo", "GPE", 9),),
    caption="Ana Ruiz on Monday.",
    caption_entities=(Entity("Ana Ruiz", "PERSON", 0), Entity("Monday", "DATE", 12)),
    paragraphs=("Ana Ruiz spoke in Oslo. It rained.", "Nobody came."),
    sentences=(
        Sentence(
            "Ana Ruiz spoke in Oslo.", 0, 0, (Entity("Ana Ruiz", "PERSON", 0), Entity("Oslo", "GPE", 18))
        ),
        Sentence("It rained.", 0, 24),
        Sentence("Nobody came.", 1, 0),
    ),
    extra={"url": "https://example.org/oslo", "tags": ["storm", None, 1.5]},
)
RECORD = {
    "schema": 1,
    "key": "oslo_0",
    "split": "train",
    "source": "by hand",
    "article_id": "oslo",
    "image_position": 1,
    "headline": "Storm in Oslo",
    "headline_entities": [[9, 13, "GPE"]],
    "caption": "Ana Ruiz on Monday.",
    "caption_entities": [[0, 8, "PERSON"], [12, 18, "DATE"]],
    "paragraphs": ["Ana Ruiz spoke in Oslo. It rained.", "Nobody came."],
    "sentences": [
        {"paragraph": 0, "start": 0, "end": 23, "entities": [[0, 8, "PERSON"], [18, 22, "GPE"]]},
        {"paragraph": 0, "start": 24, "end": 34, "entities": []},
        {"paragraph": 1, "start": 0, "end": 12, "entities": []},
    ],
    "extra": {"url": "https://example.org/oslo", "tags": ["storm", None, 1.5]},
}


def broken(path, value):
    """RECORD with another value at the path, e.g. ``("sentences", 0, "start")``."""
    record = deepcopy(RECORD)
    *way, last = path
    place = record
    for step in way:
        place = place[step]
    place[last] = value
    return record


def without(path):
    """RECORD without the field at the path."""
    record = deepcopy(RECORD)
    *way, last = path
    place = record
    for step in way:
        place = place[step]
    del place[last]
    return record


def test_the_json_form():
    assert SAMPLE.to_json() == RECORD
    assert NewsSample.from_json(RECORD) == SAMPLE


def test_a_sample_that_was_just_read_has_no_sentences():
    sample = NewsSample(key="a", split="val", caption="Rain.", paragraphs=())
    assert NewsSample.from_json(sample.to_json()) == sample
    assert (sample.sentences, sample.headline, sample.image_position, sample.extra) == ((), "", None, {})


# Round trip

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def spans(draw, text):
    """A few ``(start, end)`` within the text; none where it is empty."""
    if not text:
        return []
    starts = draw(st.lists(st.integers(0, len(text) - 1), max_size=3))
    return [(start, draw(st.integers(start + 1, len(text)))) for start in starts]


def entities(draw, text):
    labels = st.sampled_from(["PERSON", "GPE", "DATE"])
    return tuple(Entity(text[start:end], draw(labels), start) for start, end in spans(draw, text))


@st.composite
def news_samples(draw):
    text = st.text(max_size=20)
    headline, caption = draw(text), draw(text)
    paragraphs = tuple(draw(st.lists(text, max_size=3)))
    places = [(i, *span) for i, paragraph in enumerate(paragraphs) for span in spans(draw, paragraph)]
    return NewsSample(
        key=draw(text),
        split=draw(st.sampled_from(SPLITS)),
        source=draw(text),
        article_id=draw(text),
        image_position=draw(st.none() | st.integers(0, len(paragraphs))),
        headline=headline,
        headline_entities=entities(draw, headline),
        caption=caption,
        caption_entities=entities(draw, caption),
        paragraphs=paragraphs,
        sentences=tuple(
            Sentence(paragraphs[i][start:end], i, start, entities(draw, paragraphs[i][start:end]))
            for i, start, end in places
        ),
        extra=draw(st.dictionaries(st.text(max_size=5), JSON, max_size=2)),
    )


@given(news_samples())
def test_json_keeps_everything(sample):
    assert NewsSample.from_json(json.loads(json.dumps(sample.to_json()))) == sample


# Broken records


@pytest.mark.parametrize("field", [name for name in RECORD if name not in ("schema", "key")])
def test_a_missing_field_is_named(field):
    with pytest.raises(UserError, match=rf"^sample 'oslo_0': {field}: the field is missing$"):
        NewsSample.from_json(without([field]))


@pytest.mark.parametrize("field", RECORD["sentences"][0])
def test_a_missing_field_of_a_sentence_is_named(field):
    with pytest.raises(UserError, match=rf"^sample 'oslo_0': sentences\[2\]: {field}: the field is missing$"):
        NewsSample.from_json(without(["sentences", 2, field]))


def test_a_sample_without_a_key():
    with pytest.raises(UserError, match="^sample None: key: the field is missing$"):
        NewsSample.from_json(without(["key"]))
    with pytest.raises(UserError, match="^sample 7: key: text was expected, found 7$"):
        NewsSample.from_json(broken(["key"], 7))


@pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, "1", None])
def test_another_schema_version(version):
    with pytest.raises(
        UserError, match=f"^sample 'oslo_0': schema version {version!r} found, 1 expected; make"
    ):
        NewsSample.from_json(broken(["schema"], version))


def test_no_schema_version():
    with pytest.raises(UserError, match="^sample 'oslo_0': schema version None found"):
        NewsSample.from_json(without(["schema"]))


@pytest.mark.parametrize("record", [None, [], "text", 3])
def test_no_record_at_all(record):
    with pytest.raises(UserError, match=f"a JSON object was expected.*found {type(record).__name__}"):
        NewsSample.from_json(record)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["caption"], None, "caption: text was expected, found None"),
        (["headline"], ["a"], "headline: text was expected, found ['a']"),
        (["split"], "training", "split: one of train, val, test, test_known was expected, found 'training'"),
        (["split"], {}, "split: text was expected, found {}"),
        (["paragraphs"], "one string", "paragraphs: a list was expected, found 'one string'"),
        (["paragraphs", 1], 5, "paragraphs[1]: text was expected, found 5"),
        (["image_position"], "1", "image_position: a whole number or null was expected, found '1'"),
        (["image_position"], True, "image_position: a whole number or null was expected, found True"),
        (["image_position"], 3, "image_position: 3 found, the article has 2 paragraphs"),
        (["image_position"], -1, "image_position: -1 found, the article has 2 paragraphs"),
        (["extra"], [], "extra: an object was expected, found []"),
        (["sentences"], {}, "sentences: a list was expected, found {}"),
        (["sentences", 1], [0, 5], "sentences[1]: an object was expected, found [0, 5]"),
        (["sentences", 1, "start"], 24.0, "sentences[1]: start: a whole number was expected, found 24.0"),
        (
            ["caption_entities", 1],
            [12, 18],
            "caption_entities[1]: [start, end, label] was expected, found [12, 18]",
        ),
        (
            ["sentences", 0, "entities", 1],
            ["18", "22", "GPE"],
            "sentences[0]: entities[1]: [start, end, label] was expected, found ['18', '22', 'GPE']",
        ),
    ],
)
def test_a_wrong_type_is_named_with_what_was_found(path, value, message):
    with pytest.raises(UserError) as caught:
        NewsSample.from_json(broken(path, value))
    assert str(caught.value) == f"sample 'oslo_0': {message}"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            ["headline_entities", 0],
            [9, 14, "GPE"],
            "headline_entities[0]: span 9–14 lies outside its text of 13",
        ),
        (["caption_entities", 0], [-1, 8, "PERSON"], "caption_entities[0]: span -1–8 lies outside"),
        (["caption_entities", 0], [8, 8, "PERSON"], "caption_entities[0]: span 8–8 lies outside"),
        (
            ["sentences", 0, "entities", 0],
            [18, 24, "GPE"],
            "sentences[0]: entities[0]: span 18–24 lies outside",
        ),
        (["sentences", 1, "end"], 35, "sentences[1]: span 24–35 lies outside its text of 34 characters"),
        (["sentences", 2, "paragraph"], 2, "sentences[2]: paragraph: 2 found, the article has 2 paragraphs"),
        (["sentences", 2, "paragraph"], -1, "sentences[2]: paragraph: -1 found"),
    ],
)
def test_a_span_outside_its_text_is_named(path, value, message):
    with pytest.raises(UserError) as caught:
        NewsSample.from_json(broken(path, value))
    assert str(caught.value).startswith(f"sample 'oslo_0': {message}")


@given(st.sampled_from(sorted(RECORD)), JSON)
def test_whatever_stands_in_a_field_the_answer_is_a_sample_or_one_line(field, value):
    try:
        sample = NewsSample.from_json(broken([field], value))
    except UserError as error:
        assert str(error).startswith("sample ") and "\n" not in str(error)
    else:
        assert sample.to_json() == broken([field], value)
