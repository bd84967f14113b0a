"""JSON of any size as a stream of records, texts, and the names of splits."""

from __future__ import annotations

import codecs
import json
from itertools import islice

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ealign_plugin.data.readers import READERS, json_files
from ealign_plugin.data.readers.json_files import (
    entries,
    parse,
    read_text,
    split_files,
    split_in_name,
    split_of,
)
from ealign_plugin.data.readers.source import BadRecord, Source
from ealign_plugin.errors import UserError
from tests.data.readers import sources
from tests.data.readers.bad_input import ANY_JSON


@pytest.fixture
def read(tmp_path):
    """``read(b"[1]", "list")``: the entries of a file with these bytes."""

    def entries_of(content: bytes, shape: str):
        path = tmp_path / "a.json"
        path.write_bytes(content)
        source = Source(str(path))
        return entries(source, source.path, shape)

    return entries_of


def test_a_large_file_comes_entry_by_entry(read):
    records = b", ".join(b'{"id": %d, "text": "%s"}' % (i, b"x" * 1000) for i in range(1000))
    found = read(b"[" + records + b"?", "list")
    assert [value["id"] for _, value in islice(found, 500)] == list(range(500))
    with pytest.raises(UserError):  # the broken end was not read until then
        list(found)


def test_the_three_shapes(read):
    assert list(read(b'{"a": 1, "b": [2]}', "object")) == [("a", 1), ("b", [2])]
    assert list(read(b"[1, [2]]", "list")) == [("", 1), ("", [2])]
    assert list(read(b"[1, [2]]", "lists")) == [("", 1), ("", [2])]
    assert list(read(b'{"val": [1, 2], "test": [], "train": [3]}', "lists")) == [
        ("val", 1),
        ("val", 2),
        ("train", 3),
    ]


@pytest.mark.parametrize(
    ("content", "shape", "message"),
    [
        (b"[1]", "object", "an object was expected, found array"),
        (b"{}", "list", "a list was expected, found map"),
        (b"3", "lists", "a list or an object of lists was expected, found number 3"),
        (b'{"a": {}}', "lists", "a list was expected under 'a'"),
        (b"", "list", "premature EOF"),
        (b"[1] [2]", "list", "trailing garbage"),
        (b'["\xe9"]', "list", "invalid bytes in UTF8 string"),
        (b"[NaN]", "list", "invalid char"),
        (b"[1e999]", "list", "floating point. overflow"),
        (b"[1e99999999999999999999]", "list", "floating point. overflow"),
        (b"[18446744073709551616]", "list", "integer overflow"),
        (b"[" + b"9" * 100_000 + b"]", "list", "integer overflow"),
        ("[1]".encode("utf-16"), "list", "no valid JSON"),
    ],
)
def test_a_file_that_is_wrong_as_a_whole_is_one_user_error(read, content, shape, message):
    with pytest.raises(UserError, match=message):
        list(read(content, shape))


def test_a_name_that_stands_twice_comes_twice(read):
    assert list(read(b'{"a": 1, "a": 2}', "object")) == [("a", 1), ("a", 2)]


def test_a_byte_order_mark_is_no_text(read):
    assert list(read(codecs.BOM_UTF8 + b'["\xc3\xa9"]', "list")) == [("", "é")]


def test_a_hundred_thousand_brackets_are_refused_in_small_memory(read):
    with pytest.raises(UserError, match="nested deeper than 64 levels"):
        list(read(b"[" * 100_000 + b"]" * 100_000, "list"))


def test_a_record_without_end_is_refused_before_it_fills_the_memory(read, monkeypatch):
    monkeypatch.setattr(json_files, "MAX_BYTES", 1 << 20)
    small = b'["' + b'", "'.join([b"x" * 1000] * 3000) + b'"]'  # 3 MB in all
    assert len(list(read(small, "list"))) == 3000
    with pytest.raises(UserError, match="is larger than 1 MiB"):
        list(read(b'["' + b"x" * 3_000_000 + b'"]', "list"))


@given(st.lists(ANY_JSON, max_size=5))
@settings(derandomize=True, deadline=None, max_examples=150)
def test_any_value_comes_as_it_was_written(tmp_path_factory, values):
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    source = Source(str(path))
    assert [value for _, value in entries(source, source.path, "list")] == values
    assert parse(json.dumps(values).encode()) == values


@given(st.data())
@settings(derandomize=True, deadline=None, max_examples=150)
def test_a_file_cut_off_anywhere_gives_whole_entries_and_then_an_error(tmp_path_factory, data):
    values = {"a": {"b": [1, "é😀", None]}, "c": "x" * 50, "d": [], "e": "end"}
    content = json.dumps(values, ensure_ascii=False).encode()
    path = tmp_path_factory.getbasetemp() / "cut.json"
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    source, found = Source(str(path)), []
    with pytest.raises(UserError, match="get it again"):
        found.extend(entries(source, source.path, "object"))
    assert found == list(values.items())[: len(found)]


def test_a_text_file_is_read_or_its_record_is_bad(tmp_path, monkeypatch):
    path = Source(str(tmp_path)).path / "a.txt"
    for content, cause in [(b"caf\xe9", "text is not UTF-8"), ("é".encode("utf-16"), "text is not UTF-8")]:
        path.write_bytes(content)
        with pytest.raises(BadRecord, match=cause):
            read_text(path)
    path.write_bytes(codecs.BOM_UTF8 + "é\r\n".encode())
    assert read_text(path) == "é\r\n"
    monkeypatch.setattr(json_files, "MAX_BYTES", 3)
    with pytest.raises(BadRecord, match="article file too large"):
        read_text(path)
    for missing in (tmp_path, tmp_path / "none", path / "below a file", tmp_path / ("x" * 300)):
        with pytest.raises(BadRecord, match="article file (missing|unreadable)"):
            read_text(missing)


def test_splits_go_by_many_names():
    source = Source("x")
    for told in ("val", "valid", "Validation", "dev"):
        assert split_of(source, told, "a") == "val"
    assert split_of(source, "TEST", "a") == "test"
    assert split_of(Source("x", split="test"), "train", "a") == "test"
    for told in ("holdout", "", 3, ["train"]):
        with pytest.raises(BadRecord, match="unknown split"):
            split_of(source, told, "a")
    names = {"dev.jsonl.gz": "val", "test_dict_seg.json": "test", "training.json": None, "news.json": None}
    assert {name: split_in_name(source.path / name) for name in names} == names


def test_a_folders_files_come_by_split_and_two_for_one_split_are_refused(tmp_path):
    source = Source(str(tmp_path))
    with pytest.raises(UserError, match="none of train.json, val.json, test.json in it"):
        split_files(source, (".json",))
    for name, size in {"test_x.json": 100, "valid.json": 100, "train.json": 200, "train.txt": 9}.items():
        (tmp_path / name).write_bytes(bytes(size))
    files = split_files(source, (".json",))
    assert [(path.name, span) for path, span in files] == [
        ("train.json", (0, 0.5)),
        ("valid.json", (0.5, 0.75)),
        ("test_x.json", (0.75, 1)),
    ]
    (tmp_path / "dev.json").write_bytes(b"")
    with pytest.raises(UserError, match="dev.json and valid.json both name the split val"):
        split_files(source, (".json",))


@pytest.mark.parametrize("name", ["goodnews_json", "visualnews", "vacnic", "llava", "jsonl"])
def test_a_source_may_lie_at_any_url_of_fsspec(tmp_path, name):
    location = getattr(sources, f"write_{name}")(tmp_path)
    fsspec.filesystem("memory").put(str(tmp_path), f"/{name}", recursive=True)
    url = f"memory://{name}{str(location).removeprefix(str(tmp_path))}"
    read = READERS[name.removesuffix("_json")].read
    local, remote = list(read(Source(str(location)))), list(read(source := Source(url)))
    assert [one.sample for one in remote] == [one.sample for one in local]
    assert [one.image.read_bytes() for one in remote] == [one.image.read_bytes() for one in local]
    assert source.share == 1
