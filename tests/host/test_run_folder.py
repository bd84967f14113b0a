"""Runs do not overwrite each other."""

from datetime import datetime

import pytest

from ealign_plugin.errors import UserError
from ealign_plugin.host.run_folder import (
    CONFIG,
    FINISHED,
    discard_if_empty,
    link_latest,
    make_run_folder,
    unlock,
)

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
        UserError, match=r"run.output_dir: .*/output/task: it cannot be written \(.*\); set run.output_dir to"
    ):
        make_run_folder(str(tmp_path / "output"), "task", NOON)


def test_only_an_empty_folder_is_discarded(tmp_path):
    empty, full = make_run_folder(str(tmp_path), "task", NOON), make_run_folder(str(tmp_path), "task", NOON)
    (full / "log.txt").write_text("kept")
    for folder in (empty, full):
        unlock(folder)
    discard_if_empty(empty)
    discard_if_empty(full)
    assert (empty.exists(), full.exists()) == (False, True)


def begun(output_dir, config="seed: 1"):
    folder = make_run_folder(str(output_dir), "task", NOON)
    (folder / CONFIG).write_text(config)
    return folder


def test_an_interrupted_run_of_the_same_config_goes_on_in_its_folder(tmp_path):
    older, newer = begun(tmp_path), begun(tmp_path)
    begun(tmp_path, config="seed: 2")
    for folder in (older, newer):
        unlock(folder)  # as the end of a process does
    assert make_run_folder(str(tmp_path), "task", NOON, go_on_with="seed: 1") == newer
    (newer / FINISHED).write_text("{}")
    assert make_run_folder(str(tmp_path), "task", NOON, go_on_with="seed: 1") == older


def test_a_run_that_is_still_alive_keeps_its_folder(tmp_path):
    alive = begun(tmp_path)
    assert make_run_folder(str(tmp_path), "task", NOON, go_on_with="seed: 1") != alive
    unlock(alive)
    assert make_run_folder(str(tmp_path), "task", NOON, go_on_with="seed: 1") == alive


def test_without_being_asked_a_run_begins_anew(tmp_path):
    unlock(begun(tmp_path))
    assert make_run_folder(str(tmp_path), "task", NOON).name.endswith("-2")


def test_the_link_latest_points_to_the_newest(tmp_path):
    for _ in range(2):
        link_latest(newest := make_run_folder(str(tmp_path), "task", NOON))
    assert (tmp_path / "task" / "latest").resolve() == newest
