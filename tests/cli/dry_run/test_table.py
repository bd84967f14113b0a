"""The table of a dry run on a narrow terminal."""

from __future__ import annotations

from ealign_plugin.cli.dry_run.table import print_plan


def test_the_plan_fits_a_narrow_terminal(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    print_plan("run.yaml", [("data", "ealign_news: " + "/a_long_path" * 12), ("test", "many words " * 20)])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
