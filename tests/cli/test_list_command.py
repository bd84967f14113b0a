"""``ealign list``: what is registered, here and by plugins, and what an option means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ealign_plugin.cli.app import app
from ealign_plugin.cli.options import yaml_options
from ealign_plugin.metrics.registry import METRICS
from ealign_plugin.registered.runner import EalignRunner
from ealign_plugin.registered.task import NewsCaptioning

PLUGIN = '''
from ealign_plugin.metrics import register_metric


@register_metric("test_exclamations")
def exclamations(captions):
    """Share of the captions that end in an exclamation mark."""
    return sum(one.endswith("!") for one in captions.captions) / len(captions.captions)
'''


@pytest.fixture
def listed(monkeypatch):
    """``listed("metrics")`` -> (exit code, what was printed in 80 columns)."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["list", *words])
        return done.exit_code, done.output

    return run


def rows(listed: Any, *words: str) -> list[dict[str, str]]:
    code, text = listed(*words, "--json")
    assert code == 0, text
    return json.loads(text[text.index("[") :])


@pytest.mark.parametrize(
    ("kind", "column", "names"),
    [
        ("tasks", "task", {"caption", "sentence", "entity"}),
        (
            "contexts",
            "context",
            {"none", "head", "full", "refined", "supplemented", "oracle"},
        ),
        ("controls", "control", {"renamed", "other_photo", "tfidf"}),
        ("metrics", "metric", {"captions", "entities", "people"}),
        ("datasets", "data set", {"ealign_news", "ealign_micronews", "goodnews", "jsonl"}),
        ("models", "model", {"ealign_instructblip", "ealign_llava", "blip_caption"}),
        ("options", "key", {"run.context_words", "model.max_txt_len", "datasets.ealign_micronews.limit"}),
    ],
)
def test_everything_registered_is_listed(listed, kind, column, names):
    found = rows(listed, kind)
    assert names <= {row[column] for row in found}
    ours = [row for row in found if row[column] in names and row.get("from") != "lavis"]
    assert all(row.get("what") or row.get("help") for row in ours)


@pytest.mark.parametrize("kind", ["tasks", "contexts", "metrics", "datasets", "models", "options"])
def test_every_table_fits_80_columns(listed, kind):
    code, text = listed(kind)
    assert code == 0, text
    assert max(map(len, text.splitlines())) <= 80


def test_an_option_with_its_default_its_range_and_its_meaning(listed):
    (option,) = rows(listed, "options", "run.context_words")
    assert option == {
        "key": "run.context_words",
        "default": "500",
        "range": "a whole number of at least 1",
        "help": NewsCaptioning.RUN_KEYS["context_words"],
    }
    code, text = listed("options", "run.context_words")
    assert code == 0 and "a whole number of at least 1" in text


def test_the_options_below_a_key(listed):
    keys = {row["key"] for row in rows(listed, "options", "model.vision_config")}
    assert keys and all(key.startswith("model.vision_config.") for key in keys)


def test_every_key_that_the_task_and_the_runner_read_is_there(listed):
    keys = {row["key"] for row in rows(listed, "options", "run")}
    assert keys >= {f"run.{key}" for key in (*NewsCaptioning.RUN_KEYS, *EalignRunner.RUN_KEYS)}


def test_a_plugins_metric_is_listed_beside_ours(listed, tmp_path, monkeypatch):
    (tmp_path / "listed_plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        found = {row["metric"]: row for row in rows(listed, "metrics", "--plugin", "listed_plugin")}
    finally:  # the registry lasts as long as the process
        METRICS.unregister("test_exclamations")
    assert found["test_exclamations"] == {
        "metric": "test_exclamations",
        "figures": "test_exclamations",
        "from": "listed_plugin",
        "what": "Share of the captions that end in an exclamation mark.",
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["metric"], "list: unknown kind 'metric'; did you mean 'metrics'?"),
        (
            ["options", "run.context_wrods"],
            "'run.context_wrods' found; did you mean run.context_words?",
        ),
        (["options", "zzz"], "`ealign list options` prints all"),
        (["tasks", "caption"], "only `ealign list options` takes one"),
        (["tasks", "--plugin", "no_such_module"], "module 'no_such_module' cannot be imported"),
    ],
)
def test_a_mistake_is_one_line(listed, words, message):
    code, text = listed(*words)
    assert code == 2
    assert message in " ".join(text.split()) and text.startswith("error: ")


def test_comments_of_a_yaml_are_its_help(tmp_path: Path):
    path = tmp_path / "model.yaml"
    path.write_text(
        "# the head\n"
        "model:\n"
        "  width: 4              # of a layer, in # units\n"
        "  # a comment above\n"
        "  name: 'a # b'\n"
        "  shape: {size: 3}\n"
        "  extra: {}             # anything\n"
        "  sizes: [1, 2]\n"
    )
    found = {one.key: (one.default, one.range, one.help) for one in yaml_options(path)}
    assert found == {
        "model.width": ("4", "a whole number", "of a layer, in # units"),
        "model.name": ("a # b", "text", "a comment above"),
        "model.shape.size": ("3", "a whole number", ""),
        "model.extra": ("{}", "a mapping", "anything"),
        "model.sizes": ("[1, 2]", "a list", ""),
    }
