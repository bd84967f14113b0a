"""VisualNews: a million rows in one file, an article's photos scattered over it."""

from __future__ import annotations

import codecs
import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ealign_plugin.data.readers import visualnews
from ealign_plugin.data.readers.source import ReadSample, Skipped, Source, split_by_hash
from ealign_plugin.errors import UserError
from tests.data.readers.bad_input import ESCAPES, altered
from tests.data.readers.sources import NEWS, photo, write_json, write_visualnews

ROW = {
    "id": 7,
    "caption": "Ana Ruiz.",
    "topic": "world",
    "source": "bbc",
    "image_path": "./bbc/images/0001/5.jpg",
    "article_path": "./bbc/articles/1.txt",
}


def read(location, **options):
    return list(visualnews.read(Source(str(location), **options)))


def folder_of(folder, rows, articles=("1",)):
    write_json(folder / "data.json", rows)
    (folder / "bbc/articles").mkdir(parents=True, exist_ok=True)
    for name in articles:
        (folder / f"bbc/articles/{name}.txt").write_text(f"Article {name}.", encoding="utf-8")
    return folder


def test_an_articles_photos_come_in_a_row(tmp_path):
    found = read(write_visualnews(tmp_path))
    expected = [(article.paragraphs, one.caption) for article in NEWS for one in article.photos]
    assert [(one.sample.paragraphs, one.sample.caption) for one in found] == expected
    assert found[0].sample.key == "bbc_1000"
    assert found[0].sample.extra == {"topic": "world", "publisher": "bbc"}
    assert found[0].image.read_bytes() == photo("4fd2a0fjord_0")
    assert found == read(tmp_path / "data.json")


def test_the_split_is_ours_by_article(tmp_path):
    rows = [{**ROW, "id": i, "article_path": f"./bbc/articles/{i // 2}.txt"} for i in range(60)]
    found = read(folder_of(tmp_path, rows, articles=range(30)))
    assert {one.sample.article_id: one.sample.split for one in found} == {
        f"bbc/articles/{i}.txt": split_by_hash(f"bbc/articles/{i}.txt") for i in range(30)
    }
    assert all(
        one.sample.split == other.sample.split for one, other in zip(found[::2], found[1::2], strict=True)
    )
    assert {one.sample.split for one in read(tmp_path, split="val")} == {"val"}


def test_keys_hold_no_dots_and_slashes(tmp_path):
    rows = [{**ROW, "source": "a.b/c d", "id": "x.1"}, {**ROW, "id": 7}, {**ROW, "id": 7}]
    assert [one.sample.key for one in read(folder_of(tmp_path, rows))] == ["a_b_c_d_x_1", "bbc_7", "bbc_7"]


def test_each_article_is_read_once_when_its_turn_comes(tmp_path):
    rows = [{**ROW, "id": i, "article_path": f"./bbc/articles/{i % 2}.txt"} for i in range(4)]
    folder_of(tmp_path, rows, articles="01")
    source = Source(str(tmp_path))
    found = visualnews.read(source)
    next(found)
    os.remove(tmp_path / "bbc/articles/0.txt")
    (tmp_path / "bbc/articles/1.txt").write_text("Changed.")
    assert next(found).sample.paragraphs == ("Article 0.",)
    assert [one.sample.paragraphs for one in found] == [("Changed.",)] * 2
    assert source.share == 1


def test_articles_that_are_missing_or_no_utf8_are_skipped_with_all_their_photos(tmp_path):
    rows = [
        {**ROW, "id": 1, "article_path": "./bbc/articles/none.txt"},
        {**ROW, "id": 2, "article_path": "./bbc/articles/none.txt"},
        {**ROW, "id": 3, "article_path": "./bbc/articles/latin.txt"},
        {**ROW, "id": 4},
    ]
    folder_of(tmp_path, rows)
    (tmp_path / "bbc/articles/latin.txt").write_bytes("Él habló.".encode("latin-1"))
    *skipped, last = read(tmp_path)
    assert [(one.key, one.cause) for one in skipped] == [
        ("bbc_1", "article file missing"),
        ("bbc_2", "article file missing"),
        ("bbc_3", "text is not UTF-8"),
    ]
    assert last.sample.key == "bbc_4"


@pytest.mark.parametrize("field", ["image_path", "article_path"])
@pytest.mark.parametrize("name", [*ESCAPES, "file:///etc/passwd", "http://x/y"])
def test_paths_stay_in_the_folder(tmp_path, field, name):
    found = read(folder_of(tmp_path, [{**ROW, field: name}, ROW]))
    assert found[0] == Skipped("data.json[0]", "path leads out of its folder", name)
    assert found[1].sample.key == "bbc_7"


def test_a_file_that_is_no_list_is_refused(tmp_path):
    with pytest.raises(UserError, match="a list was expected"):
        read(folder_of(tmp_path, {"1": ROW}))
    (tmp_path / "data.json").write_bytes(codecs.BOM_UTF8 + json.dumps([ROW]).encode())
    assert len(read(tmp_path)) == 1
    (tmp_path / "data.json").unlink()
    with pytest.raises(UserError, match="data.json: no such file"):
        read(tmp_path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_visualnews(tmp_path_factory.mktemp("visualnews"))


@given(st.data())
@settings(derandomize=True, deadline=None, max_examples=60)
def test_a_file_cut_off_anywhere_gives_nothing_but_an_error(folder, data):
    content = (folder / "data.json").read_bytes()
    (folder / "cut.json").write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(UserError, match="cut.json"):
        next(visualnews.read(Source(str(folder / "cut.json"))))


@given(altered(ROW))
@settings(derandomize=True, deadline=None, max_examples=150)
def test_a_malformed_row_is_skipped_whatever_it_holds(tmp_path_factory, row):
    folder = folder_of(tmp_path_factory.getbasetemp() / "visualnews-any", [row, {**ROW, "id": "good"}])
    found = read(folder)
    assert len(found) == 2
    assert "bbc_good" in [one.sample.key for one in found if isinstance(one, ReadSample)]
