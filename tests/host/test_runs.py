"""Whole runs of twenty steps, as a user starts them: from another folder, through both ways of installing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

SMALL = [
    "datasets.ealign_micronews.world.articles.train=12",
    "datasets.ealign_micronews.world.articles.val=2",
    "datasets.ealign_micronews.world.articles.test=4",
    "run.max_iters=20",
    "run.iters_per_inner_epoch=10",
    "run.warmup_steps=4",
    "run.batch_size_train=16",
    "run.batch_size_eval=6",
    "run.log_freq=5",
    "run.max_len=12",
]
LEFT = {
    "config.yaml",
    "console.log",
    "log.txt",
    "metrics.json",
    "predictions.jsonl",
    "report.txt",
    "checkpoint_best.safetensors",
    "checkpoint_last.safetensors",
    "checkpoint_last.state.pt",
}


def newest_run(folder: Path) -> Path:
    return max((folder / "output" / "ealign_news_captioning").iterdir(), key=lambda run: run.stat().st_mtime)


def steps(run: Path) -> list[dict]:
    lines = (run / "log.txt").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["split"] == "step"]


@pytest.fixture(scope="module")
def runs(installed, root, tmp_path_factory):
    """``runs(mode)`` -> (folder of a twenty-step run, what it printed); one of each mode."""
    made: dict[str, tuple[Path, subprocess.CompletedProcess]] = {}

    def get(mode: str) -> tuple[Path, subprocess.CompletedProcess]:
        if mode not in made:
            folder = tmp_path_factory.mktemp(mode)
            done = start(installed(mode), root, folder)
            assert done.returncode == 0, done.stderr[-3000:]
            made[mode] = newest_run(folder), done
        return made[mode]

    return get


def command(
    python: Path, root: Path, *options: str, module: str = "lavis.train", args: tuple[str, ...] = ()
) -> list[str]:
    config = str(root / "projects" / "ealign" / "train.yaml")
    return [str(python), "-m", module, "--cfg-path", config, *args, "--options", *SMALL, *options]


def start(python: Path, root: Path, folder: Path, *options: str, **more) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(python, root, *options, **more), cwd=folder, capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize("mode", ["regular", "editable"])
def test_twenty_steps_leave_all_that_was_promised(mode, runs):
    run, done = runs(mode)
    assert {file.name for file in run.iterdir()} == LEFT
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr
    for row in ("head", "refined", "supplemented", "oracle", "refined (images shuffled)"):
        assert f"| {row} " in done.stdout
    assert done.stdout.count("  reference: ") == 3
    assert (run / "report.txt").read_text().strip() in done.stdout

    records = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    assert len(records) == 12 * 5
    assert {"key", "context", "reference", "caption", "context_text", "selected", "entities"} <= set(
        records[0]
    )
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["test"]["samples"] == 12
    assert 0 <= metrics["test"]["contexts"]["refined"]["cider"]
    assert metrics["best_iters"] in (10, 20)
    losses = [line["loss"] for line in steps(run)]
    assert len(losses) == 4 and losses[-1] < losses[0]


def test_the_same_seed_gives_the_same_run(runs):
    one, two = runs("regular")[0], runs("editable")[0]
    for name in ("metrics.json", "predictions.jsonl", "report.txt", "log.txt"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


def test_evaluation_of_the_best_checkpoint_repeats_the_test(runs, installed, root, tmp_path):
    run, _ = runs("editable")
    checkpoint = ("--checkpoint", str(run / "checkpoint_best.safetensors"))
    done = start(installed("editable"), root, tmp_path, module="lavis.evaluate", args=checkpoint)
    assert done.returncode == 0, done.stderr[-3000:]
    again = newest_run(tmp_path)
    assert (again / "predictions.jsonl").read_bytes() == (run / "predictions.jsonl").read_bytes()
    assert not list(again.glob("checkpoint*"))


def test_an_evaluation_killed_in_the_middle_goes_on_by_the_same_command(runs, installed, root, tmp_path):
    run, _ = runs("editable")
    again = ["run.batch_size_eval=1", "run.num_beams=4"]
    options = {"module": "lavis.evaluate", "args": ("--checkpoint", str(best(run)))}
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    for folder in (undisturbed, killed):
        folder.mkdir()
    assert start(installed("editable"), root, undisturbed, *again, **options).returncode == 0

    for photos in (2, 7):  # twice: what was resumed may be interrupted too
        process = subprocess.Popen(
            command(installed("editable"), root, *again, **options),
            cwd=killed,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        wait_for(lambda most=photos: journal_lines(killed) > most, process)
        process.kill()
        process.wait()
    done = start(installed("editable"), root, killed, *again, **options)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Going on with an evaluation: " in done.stderr
    assert len(list((killed / "output" / "ealign_news_captioning").iterdir())) == 1
    for name in ("predictions.jsonl", "report.txt", "metrics.json"):
        assert (newest_run(killed) / name).read_bytes() == (newest_run(undisturbed) / name).read_bytes()
    left = {file.name for file in newest_run(killed).iterdir()}
    assert left == {
        "config.yaml",
        "console.log",
        "log.txt",
        *("metrics.json", "predictions.jsonl", "report.txt"),
    }


def journal_lines(folder: Path) -> int:
    return sum(len(file.read_bytes().splitlines()) - 1 for file in folder.rglob("rank*.jsonl"))


def best(run: Path) -> Path:
    return run / "checkpoint_best.safetensors"


def test_a_resumed_run_goes_on_as_if_nothing_had_happened(runs, installed, root, tmp_path):
    whole, _ = runs("editable")
    half = tmp_path / "half"
    half.mkdir()
    python = installed("editable")
    # Stopped after ten of twenty steps: the schedule still knows of twenty.
    interrupted = subprocess.Popen(
        command(python, root), cwd=half, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    wait_for(lambda: list(half.rglob("checkpoint_last.state.pt")), interrupted)
    interrupted.kill()
    interrupted.wait()
    state = torch.load(next(half.rglob("checkpoint_last.state.pt")), weights_only=True)
    assert state["iters"] in (10, 20)
    rest = tmp_path / "rest"
    rest.mkdir()
    checkpoint = next(half.rglob("checkpoint_last.safetensors"))
    done = start(python, root, rest, f"run.resume_ckpt_path={checkpoint}")
    assert done.returncode == 0, done.stderr[-3000:]
    resumed = newest_run(rest)
    expected = [line for line in steps(whole) if line["iters"] > state["iters"]]
    assert steps(resumed) == expected
    one, two = (load_file(run / "checkpoint_last.safetensors") for run in (whole, resumed))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_ctrl_c_ends_a_run_in_one_line_and_leaves_no_half_written_file(installed, root, tmp_path):
    process = subprocess.Popen(
        command(installed("editable"), root, "run.max_iters=2000", "run.iters_per_inner_epoch=5"),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Whoever runs the tests in the background has it ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    wait_for(lambda: list(tmp_path.rglob("checkpoint_best.safetensors")), process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error[-3000:]
    assert error.rstrip().endswith("interrupted") and "Traceback" not in error
    left = [file for file in newest_run(tmp_path).iterdir()]
    assert not [file for file in left if file.name.startswith(".") or file.suffix == ".part"]
    for file in left:
        if file.suffix == ".safetensors":
            load_file(file)
        elif file.name == "log.txt":
            list(map(json.loads, file.read_text().splitlines()))


def wait_for(condition, process: subprocess.Popen, seconds: float = 120) -> None:
    end = time.time() + seconds
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.time() < end, "the run did not get there in time"
        time.sleep(0.05)


def test_two_processes_train_and_evaluate_each_sample_once(installed, root, tmp_path):
    python = installed("editable")
    module, *rest = command(
        python, root, "run.max_iters=4", "run.iters_per_inner_epoch=4", "run.num_workers=0"
    )[2:]
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m", module, *rest]
    done = subprocess.run([str(python), *launcher], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    run = newest_run(tmp_path)
    records = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    assert len({(record["key"], record["context"]) for record in records}) == len(records) == 12 * 5
    # Each process reads its own part of the stream and tells its own place.
    assert len(set(torch.load(run / "checkpoint_last.state.pt", weights_only=True)["streams"])) == 2


SCRIPT = """
import ealign_plugin
import torch
from lavis.datasets.builders import dataset_zoo
from lavis.models import load_model_and_preprocess, model_zoo
from PIL import Image

assert "ealign_micronews" in dataset_zoo.get_names() and "ealign_instructblip" in dict(model_zoo)
model, vis, txt = load_model_and_preprocess("ealign_instructblip", "micro", is_eval=True)
model.load_checkpoint({checkpoint!r})
image = vis["eval"](Image.new("RGB", (320, 240), "navy")).unsqueeze(0)
instruction = txt["eval"]("Article:  Maria Keller came to Oslo. Write the caption of this news photo:")
print(model.generate({{"image": image, "instruction": [instruction]}}, num_beams=2, max_length=5)[0])
loss = model({{"image": image, "instruction": [instruction], "target": ["Maria Keller in Oslo."]}})["loss"]
assert torch.isfinite(loss)
"""


def test_use_from_another_project_takes_fifteen_lines(runs, installed, run_python):
    run, _ = runs("regular")
    code = SCRIPT.format(checkpoint=str(run / "checkpoint_best.safetensors"))
    assert len(code.strip().splitlines()) <= 15
    done = run_python("-c", code, python=installed("regular"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_load_dataset_of_lavis_knows_ours(own_cache, tmp_path, run_python, installed):
    code = (
        "import ealign_plugin; from lavis.datasets.builders import load_dataset;"
        "from lavis.common.registry import registry; from omegaconf import OmegaConf;"
        "cls = registry.get_builder_class('ealign_micronews');"
        "cfg = OmegaConf.load(cls.default_config_path());"
        "cfg.datasets.ealign_micronews.world.articles = dict(train=12, val=2, test=4);"
        "OmegaConf.save(cfg, 'small.yaml');"
        "sets = load_dataset('ealign_micronews', 'small.yaml');"
        "print(sorted(sets), len(sets['test']), sorted(next(iter(sets['train']))))"
    )
    done = run_python("-c", code, python=installed("editable"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == (
        "['test', 'train', 'val'] 12 "
        "['image', 'instruction', 'key', 'question', 'stream_state', 'target', 'task']"
    )
