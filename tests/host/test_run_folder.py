"""Runs do not overwrite each other."""

from datetime import datetime

import pytest

from ealign_plugin.errors import UserError
from ealign_plugin.host.run_folder import discard_if_empty, make_run_folder

NOON = datetime(2026, 11, 23, 12, 0, 5)


def test_two_runs_in_one_second_get_two_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = (make_run_folder("output", "captioning", NOON) for _ in range(2))
    assert first == tmp_path / "output" / "captioning" / "2026-11-23_12-00-05"
    assert second.name == "2026-11-23_12-00-05-2"


def test_an_absolute_output_dir_is_taken_as_it_is(tmp_path):
    assert make_run_folder(str(tmp_path / "runs"), "task", NOON).parent == tmp_path / "runs" / "task"


def test_an_output_dir_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "output").write_text("a file stands in the way")
    with pytest.raises(
        UserError, match=r"run.output_dir: .*output: cannot make or write .*; set run.output_dir to"
    ):
        make_run_folder(str(tmp_path / "output"), "task", NOON)


def test_only_an_empty_folder_is_discarded(tmp_path):
    empty, full = make_run_folder(str(tmp_path), "task", NOON), make_run_folder(str(tmp_path), "task", NOON)
    (full / "log.txt").write_text("kept")
    discard_if_empty(empty)
    discard_if_empty(full)
    assert (empty.exists(), full.exists()) == (False, True)
