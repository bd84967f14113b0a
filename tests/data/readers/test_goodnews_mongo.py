"""GoodNews out of the MongoDB dump of Transform and Tell."""

from __future__ import annotations

import copy

import bson
import mongomock
import pytest

from ealign_plugin.data.readers import goodnews_mongo
from ealign_plugin.data.readers.source import ReadSample, Skipped, Source
from ealign_plugin.errors import UserError
from ealign_plugin.news import NewsSample
from tests.data.readers.mongo_files import write_archive, write_folder

RUIZ = {"start": 0, "end": 4, "text": "Ruiz", "label": "PERSON"}
OSLO = {"start": 0, "end": 4, "text": "Oslo", "label": "GPE"}
STORM = {
    "_id": "4fd2a1dc",
    "web_url": "https://example.org/storm",
    "images": {"0": " Ruiz in Oslo. ", "2": "The harbor."},
    "article": "Oslo was hit.\nRuiz spoke.\n",
    "context": "Storm over Oslo\n\nOslo was hit.\nRuiz spoke.",
    "headline": {"main": "Another headline"},
    "language": "en",
    "caption_ner": {"0": [RUIZ], "2": []},
    "context_ner": [OSLO],
}
BARE = {"_id": "5aa", "images": {"0": "A dog."}, "article": "A dog barked.", "context": "A dog barked."}


def split(article, index, name):
    return {"_id": f"{article}_{index}", "article_id": article, "image_index": index, "split": name}


DUMP = {
    "goodnews": {
        "objects": [{"_id": "4fd2a1dc_0", "object_features": [0.5, 0.25]}],
        "articles": [STORM, BARE],
        "splits": [split("5aa", "0", "val"), split("4fd2a1dc", "2", "test"), split("4fd2a1dc", "0", "train")],
    }
}


def read(location, **options):
    return list(goodnews_mongo.read(Source(str(location), **options)))


def changed(tmp_path, change):
    """What comes out of a dump whose collections the test has changed."""
    collections = copy.deepcopy(DUMP["goodnews"])
    change(collections)
    return read(write_archive(tmp_path / "dump", {"goodnews": collections}))


def test_each_image_of_an_article_is_a_sample(tmp_path):
    first, second, third = read(write_archive(tmp_path / "dump.gz", DUMP, zipped=True))
    assert first.sample == NewsSample(
        key="4fd2a1dc_0",
        split="train",
        caption="Ruiz in Oslo.",
        paragraphs=("Oslo was hit.", "Ruiz spoke."),
        headline="Storm over Oslo",
        article_id="4fd2a1dc",
        source="goodnews",
        extra={
            "url": "https://example.org/storm",
            "source_entities": {"caption": [RUIZ], "context": [OSLO]},
        },
    )
    assert NewsSample.from_json(first.sample.to_json()) == first.sample
    assert str(first.image) == str(tmp_path / "images_processed" / "4fd2a1dc_0.jpg")
    assert (second.sample.key, second.sample.split) == ("4fd2a1dc_2", "test")
    assert second.sample.extra["source_entities"] == {"caption": [], "context": [OSLO]}
    assert (third.sample.headline, third.sample.paragraphs, third.sample.extra) == (
        "",
        ("A dog barked.",),
        {},
    )


def test_the_same_samples_come_out_of_folders_and_a_live_database(tmp_path, monkeypatch):
    photos = str(tmp_path / "photos")
    expected = read(write_archive(tmp_path / "dump", DUMP), images=photos)
    assert [str(item.image) for item in expected][:1] == [f"{photos}/4fd2a1dc_0.jpg"]
    folder = write_folder(tmp_path / "folder", DUMP, zipped=True)
    assert read(folder, images=photos) == expected
    assert read(folder / "goodnews" / "articles.bson.gz", images=photos) == expected

    store = mongomock.MongoClient()
    for name, documents in DUMP["goodnews"].items():
        store["goodnews"][name].insert_many(copy.deepcopy(documents))
    monkeypatch.setattr(
        "pymongo.MongoClient", lambda url, **_: mongomock.MongoClient(url, _store=store._store)
    )
    assert read("mongodb://localhost/goodnews", images=photos) == expected


def test_a_split_that_the_user_names_holds_for_all_and_needs_no_splits(tmp_path):
    articles = {"goodnews": {"articles": DUMP["goodnews"]["articles"]}}
    found = read(write_archive(tmp_path / "dump", articles), split="test")
    assert [item.sample.split for item in found] == ["test"] * 3
    with pytest.raises(UserError, match="dump: splits expected, found goodnews.articles"):
        read(tmp_path / "dump")


def test_an_image_without_a_split_is_skipped(tmp_path):
    found = changed(tmp_path, lambda held: held["splits"].pop(1))
    assert found[1] == Skipped("4fd2a1dc_2", "no split in the source")
    assert [isinstance(item, ReadSample) for item in found] == [True, False, True]


def test_a_split_of_another_name_is_skipped(tmp_path):
    found = changed(tmp_path, lambda held: held["splits"][0].update(split="dev"))
    assert found[2] == Skipped("5aa_0", "unknown split", "dev")


@pytest.mark.parametrize(
    ("change", "skipped"),
    [
        (lambda a: a.pop("images"), [Skipped("4fd2a1dc", "missing field", "images")]),
        (lambda a: a.pop("article"), [Skipped("4fd2a1dc", "missing field", "article")]),
        (lambda a: a.update(article=3), [Skipped("4fd2a1dc", "field of a wrong type", "article: int")]),
        (lambda a: a.update(_id=[1]), [Skipped("[1]", "field of a wrong type", "_id: list")]),
        (lambda a: a["images"].update({"0": 7}), [Skipped("4fd2a1dc_0", "field of a wrong type", "0: int")]),
        (lambda a: a["images"].update({"2": None}), [Skipped("4fd2a1dc_2", "missing field", "2")]),
        (
            lambda a: a.update(context_ner=[b"bytes"]),
            [Skipped(f"4fd2a1dc_{index}", "value that JSON cannot hold", "bytes") for index in (0, 2)],
        ),
    ],
)
def test_what_cannot_be_used_is_skipped_by_cause(tmp_path, change, skipped):
    found = changed(tmp_path, lambda held: change(held["articles"][0]))
    assert [item for item in found if isinstance(item, Skipped)] == skipped
    assert found[-1].sample.key == "5aa_0"


def test_an_id_that_leads_out_of_the_folder_of_photos_is_skipped(tmp_path):
    def change(held):
        held["articles"][1]["_id"] = held["splits"][0]["article_id"] = "../../etc"

    assert changed(tmp_path, change)[-1] == Skipped(
        "../../etc_0", "path leads out of its folder", "../../etc_0.jpg"
    )


def test_a_broken_document_of_either_collection_is_skipped(tmp_path):
    def change(held):
        held["splits"].insert(0, {"_id": "x_0", "article_id": "x", "split": "train"})
        held["splits"].insert(0, bson.encode({"split": "é"}).replace("é".encode(), b"\xff\xff"))
        held["articles"].insert(1, bson.encode({"_id": "é"}).replace("é".encode(), b"\xff\xff"))

    found = changed(tmp_path, change)
    assert [(item.cause, item.detail) for item in found[:2] if isinstance(item, Skipped)][1] == (
        "missing field",
        "image_index",
    )
    assert [item.cause for item in found if isinstance(item, Skipped)] == [
        "document is no valid BSON",
        "missing field",
        "document is no valid BSON",
    ]
    assert [item.sample.key for item in found if isinstance(item, ReadSample)] == [
        "4fd2a1dc_0",
        "4fd2a1dc_2",
        "5aa_0",
    ]


@pytest.mark.parametrize(
    ("fields", "headline"),
    [
        ({"context": "A title \n of two lines\n\nA dog barked."}, "A title of two lines"),
        ({"context": "A dog barked.", "headline": {"main": " From the  field "}}, "From the field"),
        (
            {"context": "Another text\n\nof paragraphs", "headline": {"main": "From the field"}},
            "From the field",
        ),
        ({"headline": {"main": "From the field"}}, "From the field"),
        ({"headline": []}, ""),
    ],
)
def test_the_headline_is_what_stands_before_the_article_or_its_own_field(tmp_path, fields, headline):
    article = {"_id": "a", "images": {"0": "A dog."}, "article": "A dog barked.\n", **fields}
    path = write_archive(tmp_path / "dump", {"goodnews": {"articles": [article]}})
    (found,) = read(path, split="train")
    assert found.sample.headline == headline
    assert found.sample.paragraphs == ("A dog barked.",)


def test_progress_follows_the_articles(tmp_path):
    source = Source(str(write_archive(tmp_path / "dump.gz", DUMP, zipped=True)))
    samples = goodnews_mongo.read(source)
    assert source.share == 0  # nothing is opened before the first sample is asked for
    next(samples)
    assert source.share > 0
