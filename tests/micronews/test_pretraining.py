"""`projects/pretraining/micro.py`: what it writes, and that an interrupted run goes on exactly."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import subprocess
import sys
from argparse import Namespace

import pytest
import torch
from safetensors.torch import load_file

from ealign_plugin.errors import UserError
from ealign_plugin.models.families import build_model
from ealign_plugin.models.weights.hub import SHIPPED


@pytest.fixture(scope="module")
def script(root):
    spec = importlib.util.spec_from_file_location("pretraining", root / "projects/pretraining/micro.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def options(out, **changes) -> Namespace:
    given = {
        "steps": 40,
        "until": 40,
        "batch": 6,
        "rate": 1e-3,
        "articles": 3,
        "seed": 1,
        "device": "cpu",
        "workers": 0,
    }
    return Namespace(out=out, **given | changes)


def losses(script, training, school, steps: int) -> list[dict[str, float]]:
    timetable = iter(script.Timetable(school, training.options, training.model).since(training.step))
    return [
        {name: float(value) for name, value in training.learn(*next(timetable)).items()} for _ in range(steps)
    ]


def test_an_interrupted_run_goes_on_as_an_undisturbed_one(script, tmp_path):
    school = script.School("train", 3, 1, tmp_path)
    whole = losses(script, script.Training(options(tmp_path)), school, 8)
    assert whole[0].keys() == {"loss_find", "tokens"} and "loss_see" in whole[-1]
    first = script.Training(options(tmp_path))
    assert losses(script, first, school, 4) == whole[:4]
    first.save()
    again = script.Training(options(tmp_path, workers=2))  # how many draw the lessons makes no difference
    assert again.step == 4
    assert losses(script, again, school, 4) == whole[4:]
    with pytest.raises(UserError, match="set them back, or name another --out"):
        script.Training(options(tmp_path, seed=2))


@pytest.fixture(autouse=True)
def as_before():
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


def test_the_shipped_weights_see_and_copy_names_that_they_never_met(script, tmp_path):
    training = script.Training(options(tmp_path))
    held_out = script.School("held-out", 30, 2, tmp_path)  # of another seed than theirs
    training.model = build_model(
        {"arch": "ealign_instructblip", "model_type": "micro", "pretrained": "micro", "batching": "packed"}
    )
    shipped = load_file(SHIPPED["micro"] / "model.safetensors")
    own = training.model.state_dict()
    assert torch.equal(own["query_tokens"], shipped["query_tokens"].float())
    figures = training.recall(held_out, 40)
    assert figures["see_1"] > 0.6 and figures["match_1"] > 0.85
    assert all(figures[f"caption_{scenes}"] > 0.8 for scenes in (1, 2, 3)), figures


@pytest.mark.process
def test_the_command_writes_weights_that_a_model_starts_from(root, tmp_path):
    command = [sys.executable, str(root / "projects/pretraining/micro.py"), "--out", str(tmp_path / "out")]
    command += ["--steps", "20", "--batch", "4", "--articles", "2", "--asked", "3", "--device", "cpu"]
    half = subprocess.run([*command, "--until", "15"], capture_output=True, text=True, timeout=600)
    assert half.returncode == 0, half.stderr
    first = re.search(r"sha256 of model.safetensors (\w{64})", half.stdout)[1]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    second = re.search(r"sha256 of model.safetensors (\w{64})", done.stdout)[1]
    weights = (tmp_path / "out/weights/model.safetensors").read_bytes()
    assert second == hashlib.sha256(weights).hexdigest() != first
    command[command.index(str(tmp_path / "out"))] = str(tmp_path / "undisturbed")
    again = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert f"sha256 of model.safetensors {second}" in again.stdout  # the same command, the same bytes
    lines = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [15, 20]
    assert {"seconds", "tokens", "loss_see", "find_1", "match_1", "caption_3"} <= lines[1].keys()
    model = build_model({"arch": "ealign_instructblip", "pretrained": str(tmp_path / "out" / "weights")})
    assert next(model.parameters()).dtype == torch.float32
