"""`make test-fast` leaves out what starts processes or takes long, and still has a test of every room."""

from __future__ import annotations

import re
from pathlib import Path

from tests.conftest import ROOT, RUNS_COMMANDS

TESTS = ROOT / "tests"
ALL_LEFT_OUT = re.compile(r"^pytestmark = .*mark\.(slow|process|interruption)", re.MULTILINE)


def stays(file: Path) -> bool:
    """Are tests of this file among the fast ones?"""
    left_out = ALL_LEFT_OUT.search(file.read_text(encoding="utf-8"))
    return not left_out and file.relative_to(TESTS).as_posix() not in RUNS_COMMANDS


def test_every_folder_keeps_a_file_of_fast_tests():
    folders = {file.parent for file in TESTS.rglob("test_*.py") if (file.parent / "__init__.py").exists()}
    without = [str(folder) for folder in folders if not any(map(stays, folder.glob("test_*.py")))]
    assert without == []


def test_the_files_that_are_left_out_exist():
    assert [name for name in sorted(RUNS_COMMANDS) if not (TESTS / name).exists()] == []


ROOMS_OF_MODELS = ("tests/models", "tests/training", "tests/inference", "tests/metrics")


def test_fast_tests_are_selected_by_marks():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert 'FAST := -m "not slow and not process and not interruption"' in makefile
    folders = " ".join(f"--ignore={name}" for name in ROOMS_OF_MODELS)
    assert f"pytest $(FAST) {' '.join(ROOMS_OF_MODELS)}\n" in makefile  # the two halves are all tests
    assert f"pytest $(FAST) {folders}\n" in makefile
