"""``ealign ladder``: what it runs, skips, runs again and prints."""

import json
import re
import shutil
import signal
import sys

import pytest
from typer.testing import CliRunner

from ealign_plugin.cli.app import app as cli
from ealign_plugin.errors import UserError
from ealign_plugin.ladder.run import run_process
from tests.ladder.factories import edit, lines_of


def test_the_rungs_run_in_the_order_of_their_numbers_under_a_heading(start, capsys):
    assert start() == ["first", "second", "third", "fourth"]
    assert "2 of 4: second — The second\n" in capsys.readouterr().out


def test_a_rung_starts_from_the_best_weights_of_another_or_evaluates_them(start, runs, tmp_path, folder):
    start(options=["run.seed=1"])
    first, second, third, _ = runs.commands
    weights = "ealign_news_captioning/run00{}/checkpoints/iter_000001/weights.safetensors"
    best = {
        name: tmp_path / "out" / "seed1" / name / weights.format(number)
        for number, name in enumerate(("first", "second"), 1)
    }
    output = f'run.output_dir="{tmp_path}/out/seed1/%s"'
    auto = "run.resume=auto"
    assert first[1:] == [
        *("-m", "lavis.train", "--cfg-path", str(folder / "1_first.yaml")),
        *("--options", "run.seed=1", output % "first", auto),
    ]
    begin = ["model.load_finetuned=true", f'model.finetuned="{best["first"]}"']
    assert second[1:] == [
        *("-m", "lavis.train", "--cfg-path", str(folder / "2_second.yaml")),
        *("--options", "run.seed=1", output % "second", auto, *begin),
    ]
    # What the second did not train is not in its checkpoint: the third needs what the second began with.
    assert third[1:] == [
        *("-m", "lavis.evaluate", "--cfg-path", str(folder / "10_third.yaml")),
        *("--checkpoint", str(best["second"])),
        *("--options", "run.seed=1", output % "third", auto, *begin),
    ]


def test_a_finished_ladder_only_prints_its_table_again(start, tmp_path, capsys):
    start()
    table = (tmp_path / "out" / "ladder.txt").read_bytes()
    capsys.readouterr()
    assert start() == []
    assert (tmp_path / "out" / "ladder.txt").read_bytes() == table
    assert table.decode().splitlines()[2] in capsys.readouterr().out


def test_a_changed_rung_runs_again_with_those_that_start_from_it(start, folder):
    start()
    edit(folder / "2_second.yaml", "seed: 2", "seed: 3")
    assert start() == ["second", "third"]
    edit(folder / "11_fourth.yaml", "seed: 4", "seed: 5")
    assert start() == ["fourth"]
    edit(folder / "base.yaml", "max_iters: 10", "max_iters: 20")
    assert start() == ["first", "second", "third", "fourth"]
    assert start(options=["run.init_lr=0.1"]) == ["first", "second", "third", "fourth"]


def test_another_label_or_published_figure_runs_nothing(start, folder):
    start()
    edit(folder / "2_second.yaml", "label: The second", "label: Number two")
    edit(folder / "2_second.yaml", "82.7", "82.8")
    assert start() == []


def test_weights_made_anew_make_what_starts_from_them_anew(start, tmp_path):
    start()
    shutil.rmtree(tmp_path / "out" / "seed42" / "second")
    assert start() == ["second", "third"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"fingerprint": 1}', "\x00"])
def test_a_spoilt_record_counts_as_not_finished(start, tmp_path, content):
    start()
    (tmp_path / "out" / "seed42" / "fourth" / "done.json").write_text(content)
    assert start() == ["fourth"]


def test_a_failing_rung_stops_the_ladder_and_the_same_command_goes_on(start, runs, folder, tmp_path):
    runs.fail = {"second"}
    with pytest.raises(UserError) as caught:
        start()
    log = tmp_path / "out" / "seed42" / "second" / "ealign_news_captioning" / "run002" / "console.log"
    assert str(caught.value) == (
        f"rung second ({folder / '2_second.yaml'}): ended with exit code 1; its log is {log}; once that is "
        "mended, the same command goes on with this rung"
    )
    assert runs.take() == ["first", "second"]
    assert not (tmp_path / "out" / "ladder.txt").exists()
    runs.fail = set()
    assert start() == ["second", "third", "fourth"]


def test_a_rung_without_figures_is_a_failure(start, runs):
    runs.fail, runs.code = {"first"}, 0
    with pytest.raises(UserError, match="rung first .*exit code 0 and left no metrics.json; its log is"):
        start()


def test_only_runs_what_is_named_and_what_it_starts_from(start, tmp_path):
    assert start(only=["third"]) == ["first", "second", "third"]
    rows = (tmp_path / "out" / "ladder.txt").read_text().splitlines()
    seeds, *cells = (cell.strip() for cell in rows[5].split("|")[3:-1])
    assert (seeds, set(cells)) == ("0", {"-"})
    assert start(only=["fourth"]) == ["fourth"]
    assert "40.00" in (tmp_path / "out" / "ladder.txt").read_text().splitlines()[5]
    with pytest.raises(UserError, match="--only: unknown rung 'thrid'; did you mean 'third'?"):
        start(only=["thrid"])


def test_the_table_and_its_lines(start, tmp_path, folder):
    start()
    lines = (tmp_path / "out" / "ladder.txt").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:6]]
    third = dict(zip(cells[0], cells[4], strict=True))
    assert third == {
        "rung": "The third",
        "context": "oracle, 500 words",
        "seeds": "1",
        "people right": "50.00",
        **dict.fromkeys(("entity P", "entity R", "entity F1", "BLEU-4", "METEOR", "ROUGE-L"), "-"),
        "CIDEr": "30.00",
        "sentence AUC": "75.00",
        "published CIDEr (NYTimes800k)": "87.00",
    }
    assert [row[-2:] for row in cells[2:]] == [["-", "-"], ["-", "82.70"], ["75.00", "87.00"], ["-", "-"]]
    assert "cited" in lines[-1]
    records = lines_of(tmp_path / "out" / "results.jsonl")
    assert [(one["rung"], one["seed"]) for one in records] == [
        ("first", 42),
        ("second", 2),
        ("third", 42),
        ("fourth", 4),
    ]
    third = records[2]
    assert third["published"] == {"cider": 0.87}
    assert (third["figures"]["cider"], third["figures"]["sentence_auc"]) == (0.3, 0.75)
    assert (tmp_path / "out" / third["run"] / "metrics.json").is_file()


def test_a_line_says_which_code_ran_and_by_which_config(start, runs, tmp_path, folder):
    start()
    before = lines_of(tmp_path / "out" / "results.jsonl")
    assert {one["revision"] for one in before} == {"4f2a"}
    assert all(re.fullmatch("[0-9a-f]{64}", one["config_sha256"]) for one in before)
    runs.revision = None  # outside of a checkout
    edit(folder / "11_fourth.yaml", "seed: 4", "seed: 5")
    start()
    after = lines_of(tmp_path / "out" / "results.jsonl")
    assert [one["revision"] for one in after] == ["4f2a"] * 3 + ["ealign-plugin 0.1.0"]
    changed = [a["config_sha256"] != b["config_sha256"] for a, b in zip(after, before, strict=True)]
    assert changed == [False, False, False, True]


def test_the_lines_of_an_interrupted_ladder_are_there(start, runs, tmp_path):
    runs.fail = {"third"}
    with pytest.raises(UserError):
        start()
    assert [one["rung"] for one in lines_of(tmp_path / "out" / "results.jsonl")] == ["first", "second"]


def test_the_command_as_a_user_types_it(folder, tmp_path, monkeypatch, runs):
    monkeypatch.setattr(sys.modules["ealign_plugin.cli.ladder"], "run_process", runs)
    monkeypatch.chdir(tmp_path)
    words = ["ladder", str(folder), "--only", "second", "--options", "run.max_iters=5", "run.seed=9"]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.output
    assert runs.names == ["first", "second"]
    assert runs.commands[0][6:8] == ["run.max_iters=5", "run.seed=9"]
    assert (tmp_path / "output" / "ladder" / "my ladder" / "results.jsonl").is_file()


def test_words_behind_the_first_of_an_option(folder, tmp_path, monkeypatch, runs):
    monkeypatch.setattr(sys.modules["ealign_plugin.cli.ladder"], "run_process", runs)
    monkeypatch.chdir(tmp_path)
    words = ["ladder", str(folder), "--only", "first", "--seeds", "5", "6", "--options", "run.max_iters=5"]
    done = CliRunner().invoke(cli, [*words, "run.log_freq=9"])
    assert done.exit_code == 0, done.output
    assert [command[6:9] for command in runs.commands] == [
        ["run.max_iters=5", "run.log_freq=9", f"run.seed={seed}"] for seed in (5, 6)
    ]


def test_a_signal_to_the_ladder_reaches_its_process():
    code = "import os, signal, time; os.kill(os.getppid(), signal.SIGTERM); time.sleep(60)"
    assert run_process([sys.executable, "-c", code]) == -signal.SIGTERM


def test_the_exit_code_of_a_real_process_is_passed_on():
    assert run_process([sys.executable, "-c", "raise SystemExit(3)"]) == 3


def test_a_rung_that_was_interrupted_may_end_in_the_folder_that_it_began(start, runs, tmp_path):
    runs.fail = {"second"}
    with pytest.raises(UserError, match="rung second"):
        start()
    (begun,) = (tmp_path / "out" / "seed42" / "second").glob("*/run*")
    runs.fail, runs.again = set(), {"second": begun}
    assert start() == ["first", "second", "second", "third", "fourth"]
    done = json.loads((tmp_path / "out" / "seed42" / "second" / "done.json").read_text())
    assert done["run"] == str(begun.relative_to(tmp_path / "out" / "seed42" / "second"))
