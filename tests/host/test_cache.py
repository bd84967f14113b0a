"""Where data lie: the user's word, else LAVIS's folder if it is one, else the user's cache."""

from pathlib import Path

from lavis.common.registry import registry

from ealign_plugin.host.cache import adopt_cache_root, cache_root


def test_the_users_word_comes_first(monkeypatch, tmp_path):
    monkeypatch.setenv("EALIGN_CACHE", str(tmp_path / "mine"))
    assert cache_root() == tmp_path / "mine"
    assert not (tmp_path / "mine").exists()


def test_a_working_folder_of_lavis_is_kept(monkeypatch, tmp_path):
    monkeypatch.delenv("EALIGN_CACHE", raising=False)
    monkeypatch.setitem(registry.mapping["paths"], "cache_root", str(tmp_path))
    assert cache_root() == tmp_path


def test_a_missing_folder_of_lavis_is_replaced(monkeypatch, tmp_path):
    monkeypatch.delenv("EALIGN_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(registry.mapping["paths"], "cache_root", "/nowhere/lavis")
    adopt_cache_root()
    assert Path(registry.get_path("cache_root")) == tmp_path / "ealign"
