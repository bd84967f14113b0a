"""The picture of the rooms names every room, and is as new as what it is drawn from."""

from __future__ import annotations

import runpy
import sys
import tomllib
from pathlib import Path

import pytest

from tests.docs.documents import ROOT
from tests.test_walls import FILES, FLOORS, PACKAGE, room_of

SCRIPT = ROOT / "docs" / "make_architecture.py"


@pytest.fixture(scope="module")
def script() -> dict[str, object]:
    """What docs/make_architecture.py defines."""
    return runpy.run_path(str(SCRIPT))


def test_the_source_names_every_room():
    words = tomllib.loads((ROOT / "docs" / "architecture.toml").read_text(encoding="utf-8"))["rooms"]
    assert set(words) == {room for floor in FLOORS for room in floor}
    assert {room_of(file) for file in FILES} <= set(words)


def holds_files(folder: Path) -> bool:
    """Is it a folder with anything but byte code, which git leaves where a module has moved?"""
    return any(file.is_file() and file.suffix != ".pyc" for file in folder.rglob("*"))


def test_the_page_names_every_room_and_folder():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    folders = {child.name for child in PACKAGE.iterdir() if holds_files(child)}
    rooms = {room for floor in FLOORS for room in floor} - {"", "startup"}
    assert [room for room in sorted(rooms | folders) if f"`{room}" not in page] == []


def test_the_picture_is_as_new_as_its_source(script):
    picture = (ROOT / "docs" / "architecture.svg").read_text(encoding="utf-8")
    assert f"source {script['digest'](script['read_source']())}" in picture, "make docs"


def test_the_command_draws_the_picture(script, tmp_path, monkeypatch):
    out = tmp_path / "picture.svg"
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--out", str(out)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    assert script["digest"](script["read_source"]()) in out.read_text(encoding="utf-8")
    assert "<svg" in out.read_text(encoding="utf-8")


def test_a_room_without_words_is_an_error(script, tmp_path, monkeypatch):
    source = tmp_path / "architecture.toml"
    whole = (ROOT / "docs" / "architecture.toml").read_text(encoding="utf-8")
    source.write_text(whole.replace('ladder = "', 'leiter = "'), encoding="utf-8")
    monkeypatch.setitem(script["read_source"].__globals__, "SOURCE", source)
    with pytest.raises(SystemExit, match="no words for ladder"):
        script["read_source"]()
