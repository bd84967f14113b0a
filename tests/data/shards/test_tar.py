"""What is used of webdataset is still there, and does what a shard needs."""

from __future__ import annotations

import io

import pytest
import webdataset as wds

from ealign_plugin.data.shards.tar import ERRORS, cause_of, read_groups, split_name
from tests.factories import write_tar


def tar_file(*members: tuple[str, bytes]) -> io.BytesIO:
    buffer = io.BytesIO()
    write_tar(buffer, members)
    buffer.seek(0)
    return buffer


def test_webdatasets_functions_are_where_they_were():
    """Private interface: webdataset 1.0 does not promise these."""
    for name in ("base_plus_ext", "tar_file_expander", "group_by_keys"):
        assert callable(getattr(wds.tariterators, name))


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("oslo.jpg", ("oslo", "jpg")),
        ("a/b/oslo.JSON", ("a/b/oslo", "json")),
        ("oslo.front.jpg", ("oslo", "front.jpg")),
        ("LICENSE", ("", "")),
        ("", ("", "")),
    ],
)
def test_a_name_is_a_key_and_a_suffix(name, parts):
    assert split_name(name) == parts


def test_members_of_a_key_are_one_group():
    file = tar_file(("a.JPG", b"1"), ("a.json", b"2"), ("b.json", b"3"), ("b.txt", b"4"), ("LICENSE", b"5"))
    groups = list(read_groups(file, "x.tar", lambda name: split_name(name)[1] in ("jpg", "json")))
    assert groups == [("a", {"jpg": b"1", "json": b"2"}), ("b", {"json": b"3"})]


def test_a_broken_file_has_a_cause_in_words():
    with pytest.raises(ERRORS) as caught:
        list(read_groups(io.BytesIO(b"no tar" * 999), "x.tar", lambda name: True))
    assert "header" in cause_of(caught.value) and "0x" not in cause_of(caught.value)
    assert cause_of(FileNotFoundError(2, "No such file")) == "[Errno 2] No such file"
