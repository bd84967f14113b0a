"""Where a data set lies, and what one record may say: paths, fields, splits."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ealign_plugin.data.readers import source as source_module
from ealign_plugin.data.readers.source import (
    BadRecord,
    Skipped,
    Source,
    get,
    inside,
    paragraphs,
    read_or_skip,
    split_by_hash,
)
from ealign_plugin.errors import UserError
from tests.data.readers.bad_input import ESCAPES, REFUSED_URLS


def test_a_relative_path_is_kept_without_its_detours():
    assert inside("./bbc//images/0376/501.jpg") == "bbc/images/0376/501.jpg"
    assert inside("bbc\\images\\501.jpg") == "bbc/images/501.jpg"


@pytest.mark.parametrize("name", ESCAPES)
def test_a_path_that_leads_out_of_its_folder_is_refused(name):
    with pytest.raises(BadRecord, match="path leads out of its folder"):
        inside(name)


@given(st.text(st.sampled_from("ab./\\:\0 "), max_size=12))
@settings(derandomize=True, deadline=None, max_examples=300)
def test_no_name_leads_out_of_its_folder(name):
    try:
        relative = inside(name)
    except BadRecord:
        return
    folder = Path("/data/photos")
    assert folder in Path(f"{folder}/{relative}").resolve().parents
    assert "\\" not in relative


@pytest.mark.parametrize("url", REFUSED_URLS)
def test_a_photo_by_a_url_of_another_scheme_is_refused(tmp_path, url):
    with pytest.raises(BadRecord):
        Source(str(tmp_path)).image(url)


def test_a_malformed_url_is_one_bad_record_not_a_bad_source(tmp_path):
    with pytest.raises(BadRecord, match="photo's URL refused"):
        Source(str(tmp_path)).image("http://[")


def test_a_photo_lies_below_the_location_or_the_folder_of_photos(tmp_path):
    (tmp_path / "news.json").write_text("[]")
    beside = tmp_path / "images" / "a.jpg"
    assert Source(str(tmp_path)).image("a.jpg") == beside
    assert Source(str(tmp_path / "news.json")).image("a.jpg") == beside
    assert Source(str(tmp_path)).image("a.jpg", "resized") == tmp_path / "resized" / "a.jpg"
    assert Source(str(tmp_path), images=str(tmp_path / "p")).image("a.jpg", "resized") == tmp_path / "p/a.jpg"


def test_a_photo_may_lie_elsewhere_by_its_url(tmp_path, monkeypatch):
    monkeypatch.setattr(source_module, "REMOTE_IMAGES", {"memory"})  # the others need fsspec's extras
    url = "memory://photos/a.jpg"
    assert str(Source(str(tmp_path), images=str(tmp_path / "p")).image(url)) == url


def test_a_field_is_of_its_type_or_the_record_is_bad():
    record = {"text": "x", "number": 1, "flag": True, "null": None}
    assert get(record, "text", str) == "x"
    assert get(record, "number", int, str) == 1
    assert get(record, "null", str, default="") == ""
    for name, cause in [("null", "missing field"), ("none", "missing field"), ("text", "wrong type")]:
        with pytest.raises(BadRecord, match=cause):
            get(record, name, int)
    with pytest.raises(BadRecord, match="wrong type"):
        get(record, "flag", int)  # although Python calls True an int
    with pytest.raises(BadRecord, match="record is no object"):
        get(["text"], "text", str)


def test_paragraphs_are_the_lines_that_hold_something():
    assert paragraphs("  One \t two.\r\n\n \u2028Three.\n") == ("One two.", "Three.")
    assert paragraphs(" \n ") == ()


def test_the_split_by_hash_is_fixed_and_about_90_5_5():
    assert [split_by_hash(name) for name in ("a", "b", "l")] == ["train", "train", "train"]
    share = Counter(split_by_hash(f"article {number}") for number in range(4000))
    assert share["train"] == pytest.approx(3600, abs=80)
    assert share["val"] == pytest.approx(200, abs=60)
    assert share["test"] == pytest.approx(200, abs=60)


def test_an_unknown_split_is_refused_at_once():
    with pytest.raises(UserError, match="--split: one of train, val, test was expected, found 'dev'"):
        Source("x", split="dev")


def test_a_missing_file_and_a_folder_in_its_place_are_user_errors(tmp_path):
    source = Source(str(tmp_path))
    with pytest.raises(UserError, match="no such file"), source.open(source.path / "none.json"):
        pass
    with pytest.raises(UserError, match="cannot be read"), source.open(source.path):
        pass


def test_the_share_follows_the_position_within_the_files_span(tmp_path):
    (tmp_path / "a").write_bytes(bytes(1000))
    source = Source(str(tmp_path))
    with source.open(source.path / "a", count=False) as file:
        file.read()
    assert source.share == 0
    with source.open(source.path / "a") as file:
        file.read(250)
        assert source.share == pytest.approx(0.25)
    with source.open(source.path / "a", span=(0.5, 0.7)) as file:
        file.read(500)
        assert source.share == pytest.approx(0.6)
        assert file.read() == bytes(500)
        assert source.share == pytest.approx(0.7)


def test_a_bad_record_becomes_skipped_and_other_errors_stay_errors():
    def bad():
        raise BadRecord("missing field", "caption")

    assert read_or_skip("k", bad) == Skipped("k", "missing field", "caption")
    with pytest.raises(ZeroDivisionError):
        read_or_skip("k", lambda: 1 / 0)
