"""VACNIC: a dict of photos for each split, and a text file for each photo."""

from __future__ import annotations

import codecs
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ealign_plugin.data.readers import vacnic
from ealign_plugin.data.readers.source import ReadSample, Skipped, Source, split_by_hash
from ealign_plugin.errors import UserError
from tests.data.readers.bad_input import altered
from tests.data.readers.sources import NEWS, photo, write_json, write_vacnic

RECORD = {"caption": "Ana Ruiz.", "names": ["Ana Ruiz"], "org_norp": [], "gpe_loc_art": ["Oslo"]}


def read(location, **options):
    return list(vacnic.read(Source(str(location), **options)))


def folder_of(folder, records, articles=("a",), name="train.json"):
    write_json(folder / name, records)
    (folder / "articles_full").mkdir(exist_ok=True)
    for article in articles:
        (folder / "articles_full" / f"{article}.txt").write_text("Ana Ruiz spoke.\n\nIt rained.", "utf-8")
    return folder


def test_photos_come_split_by_split_with_their_texts(tmp_path):
    found = read(write_vacnic(tmp_path))
    assert [one.sample.split for one in found] == ["train", "train", "train", "val", "val", "test", "test"]
    first = found[0]
    assert first.sample.key == "4fd2a0fjord_0"
    assert first.sample.paragraphs == NEWS[0].paragraphs
    assert first.sample.caption == NEWS[0].photos[0].caption
    assert first.image.read_bytes() == photo("4fd2a0fjord_0")


def test_photos_with_the_same_text_share_the_article(tmp_path):
    fjord, pier, bridge, *_ = (one.sample for one in read(write_vacnic(tmp_path)))
    assert fjord.article_id == pier.article_id != bridge.article_id


def test_its_own_entities_are_kept_apart_from_ours(tmp_path):
    record = {**RECORD, "face_emb_dir": "/data/faces/a.npy", "name_cap": ["Ruiz"], "ner_cap": None}
    (one,) = read(folder_of(tmp_path, {"a": record}))
    assert one.sample.extra == {
        "source_entities": {
            "names": ["Ana Ruiz"],
            "org_norp": [],
            "gpe_loc_art": ["Oslo"],
            "name_cap": ["Ruiz"],
        }
    }
    assert one.sample.caption_entities == ()


def test_nytimes_articles_and_the_names_of_the_authors_scripts_are_known(tmp_path):
    expected = read(write_vacnic(tmp_path, articles="articles_seg"))
    for split, name in [("train", "train_dict_seg.json"), ("val", "valid_dict_seg.json")]:
        (tmp_path / f"{split}.json").rename(tmp_path / name)
    assert read(tmp_path) == expected


def test_one_file_is_of_the_split_in_its_name_or_the_users_or_by_hash(tmp_path):
    write_vacnic(tmp_path)
    assert {one.sample.split for one in read(tmp_path / "val.json")} == {"val"}
    assert {one.sample.split for one in read(tmp_path / "val.json", split="test")} == {"test"}
    (tmp_path / "val.json").rename(tmp_path / "news.json")
    for one in read(tmp_path / "news.json"):
        assert one.sample.split == split_by_hash(one.sample.article_id)


def test_a_missing_or_unreadable_article_skips_its_photo(tmp_path):
    folder_of(tmp_path, {"none": RECORD, "latin": RECORD, "a": RECORD})
    (tmp_path / "articles_full/latin.txt").write_bytes("Él habló.".encode("latin-1"))
    *skipped, last = read(tmp_path)
    assert [(one.key, one.cause) for one in skipped] == [
        ("none", "article file missing"),
        ("latin", "text is not UTF-8"),
    ]
    assert last.sample.key == "a"


@pytest.mark.parametrize("key", ["../train.json", "/etc/passwd", "C:\\x", "a/../../b", "file:///etc/passwd"])
def test_a_key_leads_to_no_file_outside(tmp_path, key):
    (one,) = read(folder_of(tmp_path, {key: RECORD}))
    assert (one.key, one.cause) == (key, "path leads out of its folder")


def test_a_folder_without_json_or_without_articles_is_refused(tmp_path):
    with pytest.raises(UserError, match="none of train.json, val.json, test.json in it"):
        read(tmp_path)
    with pytest.raises(UserError, match="none.json: no such file"):
        read(tmp_path / "none.json")
    write_json(tmp_path / "train.json", {"a": RECORD})
    with pytest.raises(UserError, match="no folder articles_full or articles_seg"):
        read(tmp_path)
    folder_of(tmp_path, [RECORD])
    with pytest.raises(UserError, match="an object was expected"):
        read(tmp_path)


def test_records_are_read_as_they_are_asked_for_and_come_as_often_as_they_stand(tmp_path):
    folder_of(tmp_path, {})
    one = json.dumps(RECORD)
    rows = ", ".join(f'"a": {one}' for _ in range(10_000))
    (tmp_path / "train.json").write_bytes(codecs.BOM_UTF8 + f"{{{rows}}}".encode())
    source = Source(str(tmp_path))
    found = vacnic.read(source)
    assert [next(found).sample.key for _ in range(5)] == ["a"] * 5
    assert 0 < source.share < 0.2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_vacnic(tmp_path_factory.mktemp("vacnic"))


@given(st.data())
@settings(derandomize=True, deadline=None, max_examples=60)
def test_a_file_cut_off_anywhere_is_an_error_after_its_whole_records(folder, data):
    whole, content, found = read(folder), (folder / "val.json").read_bytes(), []
    (folder / "val.json").write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    try:
        with pytest.raises(UserError, match="val.json"):
            found.extend(vacnic.read(Source(str(folder))))
    finally:
        (folder / "val.json").write_bytes(content)
    assert len(found) >= 3 and found == whole[: len(found)]


@given(altered(RECORD))
@settings(derandomize=True, deadline=None, max_examples=150)
def test_a_malformed_record_is_skipped_whatever_it_holds(tmp_path_factory, record):
    folder = tmp_path_factory.getbasetemp() / "vacnic-any"
    first, last = read(folder_of(folder, {"a": record, "b": RECORD}, articles="ab"))
    assert isinstance(last, ReadSample)
    valid = isinstance(record, dict) and isinstance(record.get("caption"), str)
    assert isinstance(first, ReadSample if valid else Skipped)
