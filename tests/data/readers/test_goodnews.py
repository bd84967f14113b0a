"""GoodNews' JSON: articles with their photos, and splits in a file of their own."""

from __future__ import annotations

import codecs
import json
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ealign_plugin.data.readers import goodnews
from ealign_plugin.data.readers.source import ReadSample, Skipped, Source
from ealign_plugin.errors import UserError
from tests.data.readers.bad_input import altered
from tests.data.readers.sources import NEWS, photo, write_goodnews_json, write_json


def read(location, **options):
    return list(goodnews.read(Source(str(location), **options)))


ARTICLE = {"images": {"0": "Ana Ruiz."}, "article": "Ana Ruiz spoke.", "headline": {"main": "Storm"}}


def folder_of(folder, articles, splits):
    write_json(folder / "captioning_dataset.json", articles)
    write_json(folder / "img_splits.json", splits)
    return folder


def test_photos_come_with_their_articles(tmp_path):
    found = read(write_goodnews_json(tmp_path))
    first, storm = found[0], NEWS[0]
    assert first.sample.key == "4fd2a0fjord_0"
    assert first.sample.article_id == storm.id
    assert first.sample.headline == storm.headline
    assert first.sample.paragraphs == storm.paragraphs
    assert first.sample.caption == storm.photos[0].caption
    assert first.sample.extra == {"url": "https://news.example/4fd2a0fjord"}
    assert first.image.read_bytes() == photo("4fd2a0fjord_0")
    assert [one.sample.split for one in found] == ["train", "train", "train", "val", "val", "test", "test"]
    assert found == read(tmp_path / "captioning_dataset.json")


def test_the_other_names_of_the_files_and_of_the_photos_folder_are_known(tmp_path):
    expected = [one.sample for one in read(write_goodnews_json(tmp_path))]
    splits = json.loads((tmp_path / "img_splits.json").read_text())
    rows = [{"filename": f"{key}.jpg", "split": split, "imgid": 3} for key, split in splits.items()]
    write_json(tmp_path / "news_dataset.json", [*rows, {"filename": 3}, "row"])
    (tmp_path / "img_splits.json").unlink()
    (tmp_path / "captioning_dataset.json").rename(tmp_path / "article_caption.json")
    (tmp_path / "images").rename(tmp_path / "resized")
    found = read(tmp_path)
    assert [one.sample for one in found] == expected
    assert found[0].image == tmp_path / "resized" / "4fd2a0fjord_0.jpg"


@pytest.mark.parametrize(
    "headline", [{"headline": {"main": "A \n storm"}}, {"headline.main": "A storm"}, {"headline": "A storm"}]
)
def test_headlines_stand_nested_or_dotted(tmp_path, headline):
    article = {"images": {"0": "Ana."}, "article": "x", **headline}
    assert read(folder_of(tmp_path, {"a": article}, {"a_0": "train"}))[0].sample.headline == "A storm"


def test_a_photo_without_split_is_skipped_and_the_users_split_wins(tmp_path):
    folder_of(
        tmp_path, {"a": {**ARTICLE, "images": {"0": "x", "1": "y", "2": "z"}}}, {"a_0": "dev", "a_1": "w"}
    )
    first, *skipped = read(tmp_path)
    assert first.sample.split == "val"
    assert skipped == [Skipped("a_1", "unknown split", "w"), Skipped("a_2", "no split in the source")]
    (tmp_path / "img_splits.json").unlink()
    assert [one.sample.split for one in read(tmp_path, split="test")] == ["test"] * 3


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="neither captioning_dataset.json nor article_caption.json in it"):
        read(tmp_path)
    folder_of(tmp_path, {"a": ARTICLE}, {})
    (tmp_path / "img_splits.json").unlink()
    with pytest.raises(UserError, match="neither img_splits.json nor news_dataset.json in it"):
        read(tmp_path)
    with pytest.raises(UserError, match="no such file"):
        read(tmp_path / "none.json")


@pytest.mark.parametrize("location", ["mongodb://x/goodnews", "goodnews.gz", ".", "dump"])
def test_what_is_mongodbs_goes_to_its_reader(tmp_path, monkeypatch, location):
    monkeypatch.setattr(goodnews, "read_mongo", lambda source: iter([source.location]))
    for home in (tmp_path / "goodnews", tmp_path / "dump" / "goodnews"):
        home.mkdir(parents=True)
        (home / "articles.bson.gz").touch()
    source = Source(location if "://" in location else str(tmp_path / location))
    assert list(goodnews.read(source)) == [source.location]


def test_a_duplicate_article_comes_twice_and_marks_are_no_text(tmp_path):
    one = json.dumps(ARTICLE)
    folder_of(tmp_path, {}, {"a_0": "train"})
    content = codecs.BOM_UTF8 + f'{{"a": {one}, "a": {one}}}'.encode()
    (tmp_path / "captioning_dataset.json").write_bytes(content)
    assert [found.sample.key for found in read(tmp_path)] == ["a_0", "a_0"]


def test_articles_are_read_as_they_are_asked_for(tmp_path):
    folder_of(tmp_path, {f"a{i}": {**ARTICLE, "article": "word " * 400} for i in range(2000)}, {})
    source = Source(str(tmp_path), split="train")
    assert len(list(islice(goodnews.read(source), 10))) == 10
    assert 0 < source.share < 0.1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_goodnews_json(tmp_path_factory.mktemp("goodnews"))


@pytest.mark.parametrize("name", ["captioning_dataset.json", "img_splits.json"])
@given(st.data())
@settings(derandomize=True, deadline=None, max_examples=60)
def test_a_file_cut_off_anywhere_is_an_error_after_its_whole_articles(folder, name, data):
    whole, content, found = read(folder), (folder / name).read_bytes(), []
    (folder / name).write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    try:
        with pytest.raises(UserError, match=name):
            found.extend(goodnews.read(Source(str(folder))))
    finally:
        (folder / name).write_bytes(content)
    assert found == whole[: len(found)]


@given(st.data())
@settings(derandomize=True, deadline=None, max_examples=150)
def test_a_malformed_article_is_skipped_whatever_it_holds(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "goodnews-any"
    article = data.draw(altered({**ARTICLE, "headline.main": "x", "article_url": "x"}))
    split = data.draw(st.sampled_from(["train", 3, ["val"], {}]))
    found = read(folder_of(folder, {"a": article, "b": ARTICLE}, {"a_0": split, "b_0": "val"}))
    assert isinstance(found[-1], ReadSample) and found[-1].sample.key == "b_0"
    assert all(isinstance(one, ReadSample | Skipped) for one in found)
    if not isinstance(article, dict) or not isinstance(article.get("images"), dict):
        assert isinstance(found[0], Skipped) and found[0].key == "a"


@pytest.mark.parametrize("key", ["../x", "/etc/x", "C:\\x"])
def test_a_photos_name_stays_in_the_folder(tmp_path, key):
    folder_of(tmp_path, {key: ARTICLE}, {f"{key}_0": "train"})
    assert [one.cause for one in read(tmp_path)] == ["path leads out of its folder"]
