"""Files: JSON that is read, messages of what cannot be written."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from ealign_plugin.errors import UserError
from ealign_plugin.files import cannot_write, read_json


def test_a_json_object_is_read(tmp_path: Path):
    path = tmp_path / "a.json"
    path.write_text('{"a": [1, "é"]}', encoding="utf-8")
    assert read_json(path) == {"a": [1, "é"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1', r"a.json: it is no JSON \(.*\); save it again"),
        (b"\xff\xfe", r"a.json: it is no JSON \(.*\); save it again"),
        (b"[" * 100_000, r"a.json: it is no JSON \(.*\); save it again"),
        (b"[1]", "a.json: a JSON object expected, list found; save it again"),
        (b'{"a": "' + b"x" * 200_000 + b'"}', "200,009 bytes found, at most 200,000 expected; save it again"),
    ],
)
def test_what_is_no_json_object_is_one_message(tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_json(path, advice="save it again", max_bytes=200_000)


def test_a_missing_file_is_one_message(tmp_path: Path):
    with pytest.raises(UserError, match=r"a.json: it cannot be read \(No such file or directory\); make it"):
        read_json(tmp_path / "a.json")


def test_what_cannot_be_written_has_one_wording():
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert str(cannot_write("run/log.txt", error, "make room there")) == (
        "run/log.txt: it cannot be written (No space left on device); make room there"
    )
    assert "(quota)" in str(cannot_write("run", OSError("quota")))
