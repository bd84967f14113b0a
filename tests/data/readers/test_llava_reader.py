"""News captioning as conversations: the human gives the article, the model answers the caption."""

from __future__ import annotations

import codecs
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ealign_plugin.data.readers import llava
from ealign_plugin.data.readers.source import ReadSample, Skipped, Source, split_by_hash
from ealign_plugin.errors import UserError
from tests.data.readers.bad_input import ESCAPES, REFUSED_URLS, altered
from tests.data.readers.sources import NEWS, photo, write_json, write_llava

HUMAN = {"from": "human", "value": "<image>\nAna Ruiz spoke.\nIt rained."}
RECORD = {"id": "a", "image": "a.jpg", "conversations": [HUMAN, {"from": "gpt", "value": "Ana Ruiz."}]}


def read(location, **options):
    return list(llava.read(Source(str(location), **options)))


def test_photos_come_with_the_humans_text_as_article_and_the_answer_as_caption(tmp_path):
    found = read(write_llava(tmp_path))
    first = found[0]
    assert first.sample.key == "4fd2a0fjord_0"
    assert first.sample.paragraphs == NEWS[0].paragraphs
    assert first.sample.caption == NEWS[0].photos[0].caption
    assert first.image.read_bytes() == photo("4fd2a0fjord_0")
    assert [one.sample.split for one in found] == ["train", "train", "train", "val", "val", "test", "test"]
    assert found[0].sample.article_id == found[1].sample.article_id != found[2].sample.article_id


def test_merges_prompt_stays_in_the_text(tmp_path):
    prompt = "Please generate the news image caption.\nNews Summary: Ana Ruiz spoke. \nCaption: "
    turns = [{"from": "human", "value": prompt}, {"from": "gpt", "value": "Ana Ruiz."}]
    write_json(tmp_path / "a.json", {"train": [{**RECORD, "graph_str": "Ruiz", "conversations": turns}]})
    (one,) = read(tmp_path / "a.json")
    assert one.sample.paragraphs == (
        "Please generate the news image caption.",
        "News Summary: Ana Ruiz spoke.",
        "Caption:",
    )
    assert one.sample.extra == {"graph_str": "Ruiz"}


@pytest.mark.parametrize("name", ["article", "context"])
@pytest.mark.parametrize("article", ["One. \n\nTwo.", ["One.", " ", "Two."]])
def test_an_article_of_its_own_wins(tmp_path, name, article):
    write_json(tmp_path / "a.json", [{**RECORD, name: article, "headline": "A\nstorm", "article_id": 3}])
    (one,) = read(tmp_path / "a.json")
    assert one.sample.paragraphs == ("One.", "Two.")
    assert (one.sample.headline, one.sample.article_id) == ("A storm", "3")


def test_a_list_is_of_the_split_in_its_files_name_or_the_users_or_by_hash(tmp_path):
    for name in ("dev.json", "news.json"):
        write_json(tmp_path / name, [RECORD])
    assert read(tmp_path / "dev.json")[0].sample.split == "val"
    assert read(tmp_path / "dev.json", split="test")[0].sample.split == "test"
    hashed = read(tmp_path / "news.json")[0].sample
    assert hashed.split == split_by_hash(hashed.article_id)


def test_a_folder_holds_one_list_for_each_split(tmp_path):
    for split in ("test", "valid", "train"):
        write_json(tmp_path / f"{split}.json", [{**RECORD, "id": split}])
    assert [(one.sample.key, one.sample.split) for one in read(tmp_path)] == [
        ("train", "train"),
        ("valid", "val"),
        ("test", "test"),
    ]


def test_photos_lie_in_images_or_where_there_is_none_beside_the_file(tmp_path):
    write_json(tmp_path / "a.json", [RECORD])
    assert read(tmp_path / "a.json")[0].image == tmp_path / "a.jpg"
    (tmp_path / "images").mkdir()
    assert read(tmp_path / "a.json")[0].image == tmp_path / "images" / "a.jpg"
    assert read(tmp_path / "a.json", images=str(tmp_path / "b"))[0].image == tmp_path / "b" / "a.jpg"


def test_bad_records_are_told_apart(tmp_path):
    mute = [{"from": "human", "value": "x"}]
    bad = [
        ({**RECORD, "id": None}, "missing field"),
        ({**RECORD, "conversations": mute}, "missing turn of the conversation"),
        ({**RECORD, "conversations": ["x"]}, "record is no object"),
        ({**RECORD, "image": ["a.jpg", "b.jpg"]}, "field of a wrong type"),
        ({**RECORD, "article": ["x", 3]}, "field of a wrong type"),
    ]
    write_json(tmp_path / "a.json", {"train": [record for record, _ in bad], "holdout": [RECORD]})
    found = read(tmp_path / "a.json")
    assert [one.cause for one in found] == [*(cause for _, cause in bad), "unknown split"]
    assert found[0].key == "a.json, record 1"
    assert found[4].detail == "article[1]: int"


@pytest.mark.parametrize("name", [*ESCAPES, *REFUSED_URLS])
def test_a_photo_stays_in_its_folder(tmp_path, name):
    write_json(tmp_path / "a.json", [{**RECORD, "image": name}])
    (one,) = read(tmp_path / "a.json")
    assert isinstance(one, Skipped) and one.detail == name


@pytest.mark.parametrize("content", ["3", '{"id": "a", "image": "a.jpg"}', '{"train": {"a": {}}}'])
def test_a_file_of_another_shape_is_refused(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(UserError, match="a list .*was expected"):
        read(tmp_path / "a.json")


def test_records_are_read_as_they_are_asked_for_and_come_as_often_as_they_stand(tmp_path):
    (tmp_path / "a.json").write_bytes(codecs.BOM_UTF8 + json.dumps([RECORD] * 5000).encode())
    source = Source(str(tmp_path / "a.json"))
    found = llava.read(source)
    assert [next(found).sample.key for _ in range(5)] == ["a"] * 5
    assert 0 < source.share < 0.2


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_llava(tmp_path_factory.mktemp("llava"))


@given(st.data())
@settings(derandomize=True, deadline=None, max_examples=60)
def test_a_file_cut_off_anywhere_is_an_error_after_its_whole_records(path, data):
    whole, content, found = read(path), path.read_bytes(), []
    cut = path.with_name("cut.json")
    cut.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(UserError, match="cut.json"):
        found.extend(llava.read(Source(str(cut))))
    assert found == whole[: len(found)]


@given(altered({**RECORD, "article": "x", "headline": "x", "article_id": "x", "more": "x"}))
@settings(derandomize=True, deadline=None, max_examples=150)
def test_a_malformed_record_is_skipped_whatever_it_holds(tmp_path_factory, record):
    path = tmp_path_factory.getbasetemp() / "llava-any.json"
    write_json(path, {"train": [record, {**RECORD, "id": "good"}]})
    first, last = read(path)
    assert last.sample.key == "good"
    assert isinstance(first, ReadSample | Skipped)


@given(st.lists(altered(HUMAN), max_size=3))
@settings(derandomize=True, deadline=None, max_examples=100)
def test_a_malformed_conversation_is_skipped_whatever_it_holds(tmp_path_factory, turns):
    path = tmp_path_factory.getbasetemp() / "llava-turns.json"
    write_json(path, [{**RECORD, "conversations": turns}])
    (one,) = read(path)
    assert isinstance(one, Skipped)  # nobody answers
