"""``ealign train`` and ``ealign evaluate`` beside ``python -m lavis.…``: the same options and exit codes."""

import pytest
from typer.testing import CliRunner

from ealign_plugin.cli import evaluate, train
from ealign_plugin.cli.app import app
from ealign_plugin.cli.command_line import parse
from ealign_plugin.errors import UserError


@pytest.fixture
def ealign():
    """``ealign("train", "--help")`` -> (exit code, output and errors)."""

    def run(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, list(words))
        return done.exit_code, done.output

    return run


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_help_teaches_by_examples(ealign, command):
    code, text = ealign(command, "--help")
    assert code == 0
    assert f"ealign {command} --cfg-path" in text and "examples:" in text and "--options KEY=VALUE" in text


def test_both_are_in_the_list_of_commands(ealign):
    code, text = ealign("--help")
    assert code == 0
    commands = ("train", "evaluate", "list", "prepare", "inspect", "estimate", "export", "select", "ladder")
    for command in commands:
        assert f" {command} " in text


@pytest.mark.parametrize(
    "words",
    [
        ["--cfg-path", "run.yaml", "--options", "run.seed=1", "run.device=cpu", "--dry-run"],
        ["run.yaml", "--dry-run", "--options", "run.seed=1", "run.device=cpu"],
        ["--dry-run", "run.yaml", "--options", "run.seed=1", "run.device=cpu"],
    ],
)
def test_the_file_may_stand_alone_or_behind_its_option(words):
    args = parse("train", words)
    assert (args.cfg_path, args.dry_run, args.checkpoint) == ("run.yaml", True, None)
    assert args.options == ["run.seed=1", "run.device=cpu"]


def test_all_words_reach_the_parser_unchanged(ealign, monkeypatch):
    seen = []
    monkeypatch.setattr(train, "main", lambda argv, prog: seen.append((list(argv), prog)) or 0)
    monkeypatch.setattr(evaluate, "main", lambda argv, prog: seen.append((list(argv), prog)) or 130)
    words = ["run.yaml", "--options", "a.b=[1, 2]", "c=-1", "--dry-run"]
    assert ealign("train", *words)[0] == 0
    assert ealign("evaluate", "--cfg-path=run.yaml", "--checkpoint", "out")[0] == 130
    others = ["--cfg-path=run.yaml", "--checkpoint", "out"]
    assert seen == [(words, "ealign train"), (others, "ealign evaluate")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train"], "error: ealign train: the following arguments are required: --cfg-path; see --help"),
        (["evaluate", "gone.yaml"], "error: gone.yaml: no such file"),
        (["train", "a.yaml", "--cfg-path", "b.yaml"], "FILE a.yaml and --cfg-path b.yaml: one of the two"),
        (["train", "a.yaml", "--checkpoint", "x"], "unrecognized arguments: --checkpoint"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(ealign, words, message):
    code, text = ealign(*words)
    assert code == 2
    assert message in text and text.count("\n") == 1


def test_messages_name_what_the_user_typed():
    with pytest.raises(UserError, match="^python -m lavis.evaluate: the following arguments are required"):
        parse("evaluate", [])
