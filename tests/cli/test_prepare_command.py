"""``ealign prepare`` as a user meets it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from PIL import Image

from ealign_plugin.data.shards.index import ShardIndex

EALIGN = [sys.executable, "-m", "ealign_plugin.cli"]


@pytest.fixture
def source(tmp_path) -> Path:
    """Four photos, one of which is missing."""
    folder = tmp_path / "in"
    folder.mkdir()
    lines = []
    for number in range(4):
        if number != 2:
            Image.new("RGB", (48, 32), (number * 60, 0, 0)).save(folder / f"{number}.jpg", "JPEG")
        record = {"id": f"n{number}", "image": f"{number}.jpg", "split": "train"}
        text = {"caption": "Angela Merkel in Berlin.", "article": f"Angela Merkel came to Berlin {number}."}
        lines.append(json.dumps(record | text))
    (folder / "news.jsonl").write_text("\n".join(lines))
    return folder / "news.jsonl"


def ealign(*words: object, **options) -> subprocess.CompletedProcess:
    command = [*EALIGN, *map(str, words)]
    environment = {**os.environ, "COLUMNS": "100"}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, **options)


def test_help_names_every_source_and_shows_examples():
    done = ealign("prepare", "--help")
    assert done.returncode == 0
    for word in (
        "goodnews",
        "nytimes800k",
        "visualnews",
        "vacnic",
        "llava",
        "jsonl",
        "--max-skipped",
        "Examples",
    ):
        assert word in done.stdout


def test_it_makes_shards_and_says_what_it_made_and_what_it_skipped(source, tmp_path):
    done = ealign(
        "prepare", "jsonl", source, "--out", tmp_path / "out", "--max-skipped", 0.3, "--processes", 2
    )
    assert done.returncode == 0, done.stderr
    assert "photo missing" in done.stdout and "train" in done.stdout and "ealign_news" in done.stdout
    assert "skipped n2: photo missing" in done.stderr
    assert ShardIndex.load(tmp_path / "out").samples("train") == 3
    again = ealign("prepare", "jsonl", source, "--out", tmp_path / "out", "--max-skipped", 0.3)
    assert again.returncode == 0 and "already prepared" in again.stderr


def test_a_user_error_is_one_line_and_code_2(source, tmp_path):
    done = ealign("prepare", "jsonl", tmp_path / "nothing.jsonl", "--out", tmp_path / "out")
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and "nothing.jsonl: no such file" in line


def test_an_unknown_source_is_told_with_the_choice(source, tmp_path):
    done = ealign("prepare", "flickr", source, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "goodnews" in done.stderr and "Traceback" not in done.stderr


def free_of_its_callers_signals() -> None:
    """A background job of a shell ignores Ctrl-C, and so would its children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.setsid()


@pytest.mark.slow
def test_ctrl_c_ends_it_at_once_with_one_line_and_no_process_left(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    Image.new("RGB", (48, 32)).save(folder / "0.jpg", "JPEG")
    with open(folder / "news.jsonl", "w") as file:
        for number in range(3000):
            text = {"caption": "Angela Merkel in Berlin.", "article": f"She came to Berlin {number}. " * 200}
            file.write(json.dumps({"id": f"n{number}", "image": "0.jpg", "split": "train"} | text) + "\n")
    command = [*EALIGN, "prepare", "jsonl", str(folder / "news.jsonl"), "--out", str(tmp_path / "out")]
    command += ["--samples-per-shard", "20", "--processes", "2"]
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    process = subprocess.Popen(command, stdout=child, stderr=child, preexec_fn=free_of_its_callers_signals)
    os.close(child)
    try:
        deadline, output = time.monotonic() + 120, b""
        while time.monotonic() < deadline:  # until it works: a shard is there, and the bar is drawn
            if select.select([parent], [], [], 0.05)[0]:
                output += os.read(parent, 65536)
            if b"sample/s" in output and list((tmp_path / "out").glob("*.tar")):
                break
        os.killpg(process.pid, signal.SIGINT)  # as the terminal does: to the whole group
        started = time.monotonic()
        while time.monotonic() - started < 20:
            if select.select([parent], [], [], 0.1)[0]:
                try:
                    output += os.read(parent, 65536)
                except OSError:  # the last process has closed its end
                    break
        assert process.wait(timeout=20) == 130
        assert time.monotonic() - started < 10
        text = output.decode()
        assert text.rstrip().endswith("interrupted") and "Traceback" not in text
        assert "sample/s" in text  # the bar was there
        assert gone(process.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # a test that fails leaves nothing running


def gone(group: int) -> bool:
    """No process of the group is left, a moment after its leader ended."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False
