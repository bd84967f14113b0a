"""JSON Lines: one photo a line, for any source of one's own."""

from __future__ import annotations

import codecs
import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ealign_plugin.data.readers import jsonl
from ealign_plugin.data.readers.source import ReadSample, Skipped, Source, split_by_hash
from ealign_plugin.errors import UserError
from tests.data.readers.bad_input import ESCAPES, REFUSED_URLS, altered
from tests.data.readers.sources import NEWS, photo, write_jsonl

RECORD = {"id": "a", "image": "a.jpg", "caption": "Ana Ruiz.", "article": ["Ana Ruiz spoke.", "It rained."]}


def read(location, **options):
    return list(jsonl.read(Source(str(location), **options)))


@pytest.fixture
def sample_of(tmp_path):
    """``sample_of(split="val")``: what becomes of RECORD with these fields; a `Skipped` where it is bad."""

    def one(**fields):
        (tmp_path / "one.jsonl").write_text(json.dumps({**RECORD, **fields}))
        (found,) = read(tmp_path / "one.jsonl")
        return found.sample if isinstance(found, ReadSample) else found

    return one


def test_photos_come_with_all_their_fields(tmp_path):
    found = read(write_jsonl(tmp_path))
    first, storm = found[1], NEWS[0]
    assert first.sample.key == "4fd2a0fjord_1"
    assert first.sample.paragraphs == storm.paragraphs
    assert first.sample.headline == storm.headline
    assert first.sample.article_id == storm.id
    assert first.sample.caption == storm.photos[1].caption
    assert first.sample.image_position == storm.photos[1].position
    assert first.sample.extra == {"url": "https://news.example/4fd2a0fjord"}
    assert first.image.read_bytes() == photo("4fd2a0fjord_1")
    assert [one.sample.split for one in found] == ["train", "train", "train", "val", "val", "test", "test"]


def test_gzip_and_plain_are_the_same(tmp_path):
    path = write_jsonl(tmp_path)
    (tmp_path / "news.jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert read(tmp_path / "news.jsonl.gz") == read(path)


def test_four_fields_are_enough(sample_of):
    sample = sample_of()
    assert (sample.key, sample.headline, sample.image_position, sample.extra) == ("a", "", None, {})
    assert sample.split == split_by_hash(sample.article_id)
    assert sample_of(id=3).key == "3"


def test_photos_that_share_the_text_share_the_article(sample_of):
    as_list, as_text = sample_of(), sample_of(article="Ana Ruiz spoke.\n\nIt  rained.\n")
    assert as_list.paragraphs == as_text.paragraphs
    assert as_list.article_id == as_text.article_id != sample_of(article="Else.").article_id
    assert sample_of(article_id=17).article_id == "17"


def test_the_position_counts_the_paragraphs_as_given(sample_of):
    assert [sample_of(image_position=i).image_position for i in (0, 1, 2)] == [0, 1, 2]
    with_empty = sample_of(article=["One.", " ", "Two."], image_position=2)
    assert (with_empty.paragraphs, with_empty.image_position) == (("One.", "Two."), 1)
    for position in (-1, 3):
        assert sample_of(image_position=position).cause == "image_position outside the article"
    for position in (True, 1.0, "1"):
        assert sample_of(image_position=position).cause == "field of a wrong type"


def test_entities_of_the_source_and_unknown_fields_are_kept(sample_of):
    sample = sample_of(entities=[["Ana Ruiz", "PERSON"]], tags={"a": [1.5, None]}, published="2024-05-01")
    assert sample.extra == {
        "source_entities": [["Ana Ruiz", "PERSON"]],
        "tags": {"a": [1.5, None]},
        "published": "2024-05-01",
    }


def test_the_users_split_wins_over_the_records_and_that_over_the_files(tmp_path):
    lines = [json.dumps({**RECORD, **fields}) for fields in ({"split": "dev"}, {}, {"split": "holdout"})]
    (tmp_path / "test.jsonl").write_text("\n".join(lines))
    (tmp_path / "train.jsonl.gz").write_bytes(gzip.compress(lines[1].encode()))
    train, valid, test, skipped = read(tmp_path)
    assert [one.sample.split for one in (train, valid, test)] == ["train", "val", "test"]
    assert skipped == Skipped("a", "unknown split", "holdout")
    assert {one.sample.split for one in read(tmp_path, split="train")} == {"train"}


def test_a_broken_line_is_skipped_with_its_number(tmp_path):
    good = json.dumps(RECORD).encode()
    lines = [
        codecs.BOM_UTF8 + good,
        b"",
        good[:-1],
        b'{"id": "caf\xe9"}',
        b"[" * 100_000,
        good + good,
        b"3",
        b'{"id": NaN}',
        b"\r",
        good,
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    found = read(tmp_path / "a.jsonl")
    assert [one.key for one in found if isinstance(one, Skipped)] == [
        f"a.jsonl, line {number}" for number in (3, 4, 5, 6, 7, 8)
    ]
    assert [one.cause for one in found if isinstance(one, Skipped)] == [
        "line is no JSON",
        "text is not UTF-8",
        "line is no JSON",
        "line is no JSON",
        "record is no object",
        "line is no JSON",
    ]
    assert found[1].detail.startswith("line 3: parse error: premature EOF")
    assert [type(one) for one in (found[0], found[-1])] == [ReadSample, ReadSample]


def test_the_same_line_twice_comes_twice(tmp_path):
    (tmp_path / "a.jsonl").write_text(2 * (json.dumps(RECORD) + "\n"))
    assert [one.sample.key for one in read(tmp_path / "a.jsonl")] == ["a", "a"]


def test_a_line_without_end_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonl, "MAX_BYTES", 1 << 20)
    content = json.dumps(RECORD).encode() + b"\n" + b"x" * 2_000_000
    (tmp_path / "a.jsonl").write_bytes(content)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(content))
    for name in ("a.jsonl", "a.jsonl.gz"):
        with pytest.raises(UserError, match="line 2 is longer than 1 MiB"):
            read(tmp_path / name)


def test_a_missing_file_or_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match="none of train.jsonl, val.jsonl, test.jsonl in it"):
        read(tmp_path)


def test_lines_are_read_as_they_are_asked_for(tmp_path):
    (tmp_path / "a.jsonl").write_text((json.dumps({**RECORD, "article": "word " * 400}) + "\n") * 2000)
    source = Source(str(tmp_path / "a.jsonl"))
    found = jsonl.read(source)
    next(found)
    assert 0 < source.share < 0.1
    assert len(list(found)) == 1999
    assert source.share == 1


@pytest.mark.parametrize("name", [*ESCAPES, *REFUSED_URLS])
def test_a_photo_stays_in_its_folder(sample_of, name):
    skipped = sample_of(image=name)
    assert isinstance(skipped, Skipped) and skipped.detail == name


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_jsonl(tmp_path_factory.mktemp("jsonl"))


@given(st.data())
@settings(derandomize=True, deadline=None, max_examples=100)
def test_a_file_cut_off_anywhere_loses_only_its_last_line_and_says_so(path, data):
    whole, content = read(path), path.read_bytes()
    cut = content[: data.draw(st.integers(0, len(content)))]
    path.with_name("cut.jsonl").write_bytes(cut)
    found = read(path.with_name("cut.jsonl"))
    complete = sum(line in cut.splitlines() for line in content.splitlines())
    assert found[:complete] == whole[:complete]
    assert len(found) == len(cut.splitlines())
    assert all(isinstance(one, Skipped) for one in found[complete:])


@given(st.data())
@settings(derandomize=True, deadline=None, max_examples=100)
def test_a_damaged_gzip_is_an_error_after_its_whole_lines(path, data):
    whole, content = read(path), gzip.compress(path.read_bytes(), mtime=0)
    packed = path.with_suffix(".jsonl.gz")
    if data.draw(st.booleans(), label="cut off"):
        packed.write_bytes(content[: data.draw(st.integers(1, len(content) - 1))])
    else:
        at = data.draw(st.integers(len(content) - 8, len(content) - 1))  # checksum and length
        packed.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    found = []
    with pytest.raises(UserError, match="damaged"):
        found.extend(jsonl.read(Source(str(packed))))
    assert found == whole[: len(found)]


@given(
    altered({**RECORD, "headline": "x", "split": "val", "image_position": 1, "article_id": "x", "more": "x"})
)
@settings(derandomize=True, deadline=None, max_examples=200)
def test_a_malformed_line_is_skipped_whatever_it_holds(tmp_path_factory, record):
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_text(json.dumps(record) + "\n" + json.dumps(RECORD))
    first, last = read(path)
    assert last.sample.key == "a"
    if isinstance(first, ReadSample):
        json.dumps(first.sample.to_json()).encode()
        assert first.sample.image_position in (None, *range(len(first.sample.paragraphs) + 1))


@given(st.binary(max_size=60))
@settings(derandomize=True, deadline=None, max_examples=200)
def test_any_bytes_are_lines_that_are_skipped(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "bytes.jsonl"
    path.write_bytes(content)
    assert all(isinstance(one, Skipped) for one in read(path))
