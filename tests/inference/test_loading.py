"""Which modules a checkpoint may have imported."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ealign_plugin.errors import UserError
from ealign_plugin.inference.loading import load_plugins
from ealign_plugin.inference.settings import CaptioningSettings

SETTINGS = CaptioningSettings(model={"arch": "ealign_instructblip", "model_type": "micro"})


@pytest.fixture
def stranger(tmp_path, monkeypatch) -> Path:
    """A module ``stranger_of_captions`` on the path, which leaves a file when it is imported."""
    trace = tmp_path / "imported"
    (tmp_path / "stranger_of_captions.py").write_text(f"open({str(trace)!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "stranger_of_captions", raising=False)
    return trace


def test_a_module_is_not_imported_on_a_files_word_alone(stranger):
    settings = replace(SETTINGS, plugins=("stranger_of_captions",))
    with pytest.raises(UserError, match="captioning.*'stranger_of_captions'.*plugins=.*where you trust it"):
        load_plugins(settings, Path("captioning"))
    assert not stranger.exists()


def test_a_module_that_the_user_names_is_imported(stranger):
    load_plugins(replace(SETTINGS, plugins=("stranger_of_captions",)), Path("x"), ["stranger_of_captions"])
    assert stranger.exists()


def test_a_module_that_is_imported_already_and_one_of_an_installed_plugin_may_be_named():
    load_plugins(replace(SETTINGS, plugins=("json", "ealign_plugin.news")), Path("x"))


def test_a_module_that_is_missing_is_one_message():
    with pytest.raises(UserError, match="no_such_module"):
        load_plugins(SETTINGS, Path("x"), ["no_such_module"])
