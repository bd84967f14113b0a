"""NYTimes800k out of the MongoDB dump of Transform and Tell."""

from __future__ import annotations

import copy
import hashlib
from datetime import UTC, datetime

import bson
import mongomock
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ealign_plugin.data.readers import nytimes800k
from ealign_plugin.data.readers.source import ReadSample, Skipped, Source
from ealign_plugin.news import NewsSample
from tests.data.readers.mongo_files import write_archive, write_folder

HASHES = [hashlib.sha256(name).hexdigest() for name in (b"first", b"second")]
OSLO = {"start": 0, "end": 4, "text": "Oslo", "label": "GPE"}


def paragraph(text, **more):
    return {"type": "paragraph", "text": text, **more}


def caption(text, order, **more):
    return {"type": "caption", "order": order, "text": text, "hash": HASHES[order], **more}


STORM = {
    "_id": "100000000001",
    "web_url": "https://example.org/storm",
    "pub_date": datetime(2019, 5, 3, 7, 30, tzinfo=UTC),
    "headline": {"main": "Storm over  Oslo ", "kicker": None},
    "parsed_section": [
        paragraph("Oslo was\nhit.", named_entities=[OSLO], parts_of_speech=[]),
        paragraph("  "),
        caption(" Oslo, flooded. ", 0, named_entities=[OSLO], facenet_details={"n_faces": 0}),
        paragraph("Ruiz spoke."),
        caption("Ruiz.", 1),
    ],
    "image_positions": [2, 4],
    "n_images": 2,
    "language": "en",
    "split": "valid",
}
BARE = {"_id": "b", "parsed_section": [caption("A dog.", 0), paragraph("It barked.")], "split": "train"}
DUMP = {"nytimes": {"articles": [STORM, BARE], "objects": [{"_id": HASHES[0], "object_features": [0.5]}]}}


def read(location, **options):
    return list(nytimes800k.read(Source(str(location), **options)))


def read_article(tmp_path, article, **options):
    return read(write_archive(tmp_path / "dump", {"nytimes": {"articles": [article]}}), **options)


def test_each_caption_of_a_page_is_a_sample_that_knows_its_place(tmp_path):
    first, second, third = read(write_archive(tmp_path / "dump.gz", DUMP, zipped=True))
    assert first.sample == NewsSample(
        key="100000000001_0",
        split="val",
        caption="Oslo, flooded.",
        paragraphs=("Oslo was hit.", "Ruiz spoke."),
        headline="Storm over Oslo",
        article_id="100000000001",
        image_position=1,
        source="nytimes800k",
        extra={
            "url": "https://example.org/storm",
            "published": "2019-05-03T07:30:00+00:00",
            "source_entities": {"caption": [OSLO], "paragraphs": [[OSLO], []]},
        },
    )
    assert NewsSample.from_json(first.sample.to_json()) == first.sample
    assert str(first.image) == str(tmp_path / "images_processed" / f"{HASHES[0]}.jpg")
    assert (second.sample.key, second.sample.image_position) == ("100000000001_1", 2)
    assert second.sample.extra["source_entities"] == {"paragraphs": [[OSLO], []]}
    assert (third.sample.image_position, third.sample.split, third.sample.extra) == (0, "train", {})


def test_the_same_samples_come_out_of_folders_and_a_live_database(tmp_path, monkeypatch):
    photos = str(tmp_path / "photos")
    expected = read(write_archive(tmp_path / "dump", DUMP), images=photos)
    assert str(expected[0].image) == f"{photos}/{HASHES[0]}.jpg"
    folder = write_folder(tmp_path / "folder", DUMP)
    assert read(folder, images=photos) == expected
    assert read(folder / "nytimes" / "articles.bson", images=photos) == expected

    store = mongomock.MongoClient(tz_aware=True)
    store["nytimes"]["articles"].insert_many(copy.deepcopy(DUMP["nytimes"]["articles"]))
    monkeypatch.setattr(
        "pymongo.MongoClient",
        lambda url, tz_aware, **_: mongomock.MongoClient(url, tz_aware=tz_aware, _store=store._store),
    )
    assert read("mongodb://localhost/nytimes", images=photos) == expected


@settings(derandomize=True, deadline=None, max_examples=50)
@given(texts=st.lists(st.sampled_from(["", " \n ", "One.", "Two\nlines."]) | st.none(), max_size=8))
def test_a_photo_stands_before_the_paragraph_that_follows_it(tmp_path_factory, texts):
    """Captions (None) and paragraphs in any order; empty paragraphs count for nothing."""
    section = [paragraph(text) if text is not None else {**caption("A.", 0), "order": None} for text in texts]
    found = read_article(tmp_path_factory.mktemp("page"), {**BARE, "parsed_section": section})
    before = [texts[:place] for place, text in enumerate(texts) if text is None]
    assert [item.sample.image_position for item in found] == [
        sum(bool((text or "").strip()) for text in above) for above in before
    ]
    assert [item.sample.key for item in found] == [f"b_{index}" for index in range(len(found))]
    kept = tuple(" ".join(text.split()) for text in texts if text and text.strip())
    assert all(item.sample.paragraphs == kept for item in found)


def test_a_photo_without_a_hash_is_found_by_its_url(tmp_path):
    url = "https://example.org/first.jpg"
    item = {"type": "caption", "order": bson.Int64(3), "text": "A dog.", "url": url}
    (found,) = read_article(tmp_path, {**BARE, "parsed_section": [item]})
    assert found.image.name == f"{hashlib.sha256(url.encode()).hexdigest()}.jpg"
    assert found.sample.key == "b_3"


def test_a_split_that_the_user_names_holds_for_all(tmp_path):
    (found,) = read_article(tmp_path, {**BARE, "split": "other"}, split="test")
    assert found.sample.split == "test"


@pytest.mark.parametrize(
    ("fields", "skipped"),
    [
        ({"split": None}, Skipped("b_0", "no split in the source")),
        ({"split": "dev"}, Skipped("b_0", "unknown split", "dev")),
        ({"split": 1}, Skipped("b_0", "field of a wrong type", "split: int")),
        ({"parsed_section": None}, Skipped("b", "missing field", "parsed_section")),
        ({"parsed_section": {}}, Skipped("b", "field of a wrong type", "parsed_section: dict")),
        ({"parsed_section": ["text"]}, Skipped("b", "record is no object", "str")),
        ({"parsed_section": [{"text": "x"}]}, Skipped("b", "missing field", "type")),
        ({"_id": 0.5}, Skipped("0.5", "field of a wrong type", "_id: float")),
        ({"parsed_section": [{**caption("A.", 0), "text": None}]}, Skipped("b_0", "missing field", "text")),
        ({"parsed_section": [{**caption("A.", 0), "hash": None}]}, Skipped("b_0", "missing field", "url")),
        (
            {"parsed_section": [{**caption("A.", 0), "hash": "../x"}]},
            Skipped("b_0", "photo's hash is malformed", "../x"),
        ),
        (
            {"parsed_section": [{**caption("A.", 0), "named_entities": [b"x"]}]},
            Skipped("b_0", "value that JSON cannot hold", "bytes"),
        ),
    ],
)
def test_what_cannot_be_used_is_skipped_by_cause(tmp_path, fields, skipped):
    assert read_article(tmp_path, {**BARE, **fields}) == [skipped]


def test_a_broken_document_is_skipped_and_the_next_is_read(tmp_path):
    broken = bson.encode({"_id": "é"}).replace("é".encode(), b"\xff\xff")
    path = write_archive(tmp_path / "dump", {"nytimes": {"articles": [broken, BARE]}})
    skipped, found = read(path)
    assert (skipped.cause, isinstance(found, ReadSample)) == ("document is no valid BSON", True)


@pytest.mark.parametrize(
    ("fields", "headline", "published"),
    [
        ({"headline": [], "pub_date": "2019-05-01"}, "", "2019-05-01"),
        ({"headline": {"main": None}, "pub_date": bson.datetime_ms.DatetimeMS(10**17)}, "", None),
    ],
)
def test_a_strange_headline_or_date_costs_no_sample(tmp_path, fields, headline, published):
    (found,) = read_article(tmp_path, {**BARE, **fields})
    assert (found.sample.headline, found.sample.extra.get("published")) == (headline, published)


def test_the_first_sample_comes_before_the_second_article_is_read(tmp_path):
    path = write_folder(tmp_path, {"nytimes": {"articles": [BARE]}}) / "nytimes" / "articles.bson"
    with path.open("ab") as file:
        file.write((100).to_bytes(4, "little"))  # a document that is cut off
    assert next(nytimes800k.read(Source(str(path)))).sample.key == "b_0"
