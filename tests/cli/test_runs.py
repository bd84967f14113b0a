"""Whole runs of twenty steps, as a user starts them: from another folder, through both ways of installing."""

from __future__ import annotations

import contextlib
import json
import os
import random
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
    "datasets.ealign_micronews.world.articles.test=3",
    "datasets.ealign_micronews.world.articles.test_known=0",
    "run.max_iters=20",
    "run.iters_per_inner_epoch=10",
    "run.warmup_steps=4",
    "run.batch_size_train=16",
    "run.batch_size_eval=6",
    "run.log_freq=5",
    "run.max_len=12",
    "run.test_splits=[test]",
    "run.contexts=[head,refined,supplemented,oracle]",
    "run.usual_context=head",
    "run.controls=[other_photo]",
    "run.subsets=false",
]
LEFT = {
    "checkpoints",
    "config.yaml",
    "console.log",
    "environment.json",
    "log.txt",
    "metrics.json",
    "predictions.jsonl",
    "report.txt",
}


def newest_run(folder: Path) -> Path:
    return max((folder / "output" / "ealign_news_captioning").glob("2*"))


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


WITHOUT_JAVA = {**os.environ, "PATH": ""}
"""METEOR takes seconds for each context of each run."""


def start(
    python: Path, root: Path, folder: Path, *options: str, env: dict | None = None, **more
) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(python, root, *options, **more),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        env=env,
    )


@pytest.mark.parametrize("mode", ["regular", "editable"])
def test_twenty_steps_leave_all_that_was_promised(mode, runs, root):
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
    typed = json.loads((run / "environment.json").read_text())["command"]
    assert typed[1:] == command(Path(), root)[1:]
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
    checkpoint = ("--checkpoint", str(run))
    done = start(installed("editable"), root, tmp_path, module="lavis.evaluate", args=checkpoint)
    assert done.returncode == 0, done.stderr[-3000:]
    again = newest_run(tmp_path)
    assert (again / "predictions.jsonl").read_bytes() == (run / "predictions.jsonl").read_bytes()
    assert not (again / "checkpoints").exists()


@pytest.mark.interruption
def test_an_evaluation_killed_in_the_middle_goes_on_by_the_same_command(runs, installed, root, tmp_path):
    run, _ = runs("editable")
    again = ["run.batch_size_eval=1", "run.num_beams=4"]
    options = {"module": "lavis.evaluate", "args": ("--checkpoint", str(run / "checkpoints" / "best"))}
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    for folder in (undisturbed, killed):
        folder.mkdir()
    assert (
        start(installed("editable"), root, undisturbed, *again, env=WITHOUT_JAVA, **options).returncode == 0
    )

    for photos in (2, 7):  # twice: what was resumed may be interrupted too
        process = subprocess.Popen(
            command(installed("editable"), root, *again, **options),
            cwd=killed,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=WITHOUT_JAVA,
        )
        wait_for(lambda most=photos: journal_lines(killed) > most, process)
        process.kill()
        process.wait()
    done = start(installed("editable"), root, killed, *again, env=WITHOUT_JAVA, **options)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Going on with an evaluation: " in done.stderr
    assert len(list((killed / "output" / "ealign_news_captioning").glob("2*"))) == 1
    for name in ("predictions.jsonl", "report.txt", "metrics.json"):
        assert (newest_run(killed) / name).read_bytes() == (newest_run(undisturbed) / name).read_bytes()
    left = {file.name for file in newest_run(killed).iterdir()}
    assert left == {
        *("config.yaml", "console.log", "environment.json"),
        *("metrics.json", "predictions.jsonl", "report.txt"),
    }


def journal_lines(folder: Path) -> int:
    return sum(len(file.read_bytes().splitlines()) - 1 for file in folder.rglob("rank*.jsonl"))


OFTEN = ["run.log_freq=1", "run.save_freq=1", "run.resume=auto"]


@pytest.mark.interruption
@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_killed_again_and_again_logs_every_step_as_an_undisturbed_one(
    processes, installed, root, tmp_path
):
    """``kill -9`` of all processes at random steps, each time resumed by the same command."""
    python, rng, kills = installed("editable"), random.Random(processes), 10 // processes
    options = [*OFTEN, "run.num_workers=0"] if processes == 2 else OFTEN
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    run = launched(command(python, root, *options), processes)
    again = {"capture_output": True, "text": True, "timeout": 300, "env": WITHOUT_JAVA}
    done = subprocess.run(run, cwd=whole, **again)
    assert done.returncode == 0, done.stderr[-3000:]

    resumed = 0
    for _ in range(kills):
        process = subprocess.Popen(
            run,
            cwd=killed,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=WITHOUT_JAVA,
        )
        most = len(logged(killed)) + rng.randint(0, 2)
        wait_for(lambda most=most: len(logged(killed)) > most, process)
        time.sleep(rng.random() / 10)
        for pid in family(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        resumed += b"Going on after iteration" in process.stderr.read()
    assert resumed >= kills - 2
    done = subprocess.run(run, cwd=killed, **again)
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = newest_run(whole), newest_run(killed)
    assert (one / "log.txt").read_bytes() == (two / "log.txt").read_bytes()
    for name in ("metrics.json", "predictions.jsonl", "report.txt"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    states = [load_file(run / "checkpoints/last/weights.safetensors") for run in (one, two)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def launched(run: list[str], processes: int) -> list[str]:
    if processes == 1:
        return run
    python, _, module, *rest = run
    launcher = ["torch.distributed.run", "--nproc-per-node", str(processes), "--standalone", "-m", module]
    return [python, "-m", *launcher, *rest]


def logged(folder: Path) -> list[str]:
    """The lines of log.txt so far."""
    return [line for file in folder.glob("output/*/2*/log.txt") for line in file.read_text().splitlines()]


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


@pytest.mark.interruption
def test_a_rank_that_dies_takes_the_job_down_with_the_cause_in_the_log(installed, root, tmp_path):
    run = launched(
        command(installed("editable"), root, "run.max_iters=5000", "run.iters_per_inner_epoch=5000"), 2
    )
    process = subprocess.Popen(
        run,
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for(lambda: len(logged(tmp_path)) > 2, process)
    ranks = [pid for pid in family(process.pid)[1:] if rank_of(pid) == "1"]
    start = time.time()
    os.kill(min(ranks), signal.SIGKILL)
    _, error = process.communicate(timeout=60)
    assert time.time() - start < 60
    assert process.returncode != 0
    assert "Signal 9 (SIGKILL) received by PID" in error or "exitcode: -9" in error.replace(" ", "")


def rank_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        return next((v[5:].decode() for v in variables if v.startswith(b"RANK=")), "")
    return ""


@pytest.mark.interruption
def test_preempted_a_run_saves_and_goes_on(installed, root, tmp_path):
    options = ["run.max_iters=400", "run.iters_per_inner_epoch=400", "run.resume=auto", "run.log_freq=1"]
    process = subprocess.Popen(
        command(installed("editable"), root, *options),
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for(lambda: len(logged(tmp_path)) > 3, process)
    for pid in family(process.pid):  # as schedulers do: data workers too
        os.kill(pid, signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, error[-3000:]
    assert "Stopped by SIGTERM after" in error and "Traceback" not in error
    (checkpoint,) = newest_run(tmp_path).glob("checkpoints/iter_*")
    assert int(checkpoint.name[-6:]) == len(logged(tmp_path))


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
    wait_for(lambda: list(tmp_path.rglob("checkpoints/best")), process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error[-3000:]
    assert error.rstrip().endswith("interrupted") and "Traceback" not in error
    left = [file for file in newest_run(tmp_path).rglob("*") if not file.is_symlink()]
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
    done = subprocess.run(
        [str(python), *launcher],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        env=WITHOUT_JAVA,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    run = newest_run(tmp_path)
    records = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    assert len({(record["key"], record["context"]) for record in records}) == len(records) == 12 * 5
    # Each process reads its own part of the stream and tells its own place.
    ranks = json.loads((run / "checkpoints/last/state.json").read_text())["ranks"]
    assert len({rank["stream"] for rank in ranks}) == 2


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
    code = SCRIPT.format(checkpoint=str(run / "checkpoints/best/weights.safetensors"))
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
        "['test', 'train', 'val'] 16 "
        "['image', 'instruction', 'key', 'question', 'stream_state', 'target', 'task']"
    )
