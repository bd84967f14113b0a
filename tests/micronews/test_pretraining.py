"""`projects/pretraining/micro.py`: what it writes, and that an interrupted run goes on exactly."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from argparse import Namespace

import pytest
import torch

from ealign_plugin.errors import UserError


@pytest.fixture(scope="module")
def script(root):
    spec = importlib.util.spec_from_file_location("pretraining", root / "projects/pretraining/micro.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def options(out, **changes) -> Namespace:
    return Namespace(out=out, steps=4, batch=6, rate=1e-3, articles=3, seed=1, threads=1, **changes)


def losses(script, training, school, steps: int) -> list[dict]:
    return [training.learn(school) for _ in range(steps)]


def test_an_interrupted_run_goes_on_as_an_undisturbed_one(script, tmp_path):
    threads = torch.get_num_threads()
    school = script.School("train", 3, 1, tmp_path)
    whole = losses(script, script.Training(options(tmp_path)), school, 4)
    first = script.Training(options(tmp_path))
    assert losses(script, first, school, 2) == whole[:2]
    first.save()
    again = script.Training(options(tmp_path))
    assert again.step == 2
    assert losses(script, again, school, 2) == whole[2:]
    with pytest.raises(UserError, match="set them back, or name another --out"):
        script.Training(Namespace(**{**vars(options(tmp_path)), "seed": 2}))
    torch.set_num_threads(threads)


def test_the_next_stage_begins_when_a_stage_is_mastered_or_has_had_its_time(script, tmp_path):
    training = script.Training(options(tmp_path))
    training.options.steps = 10_000
    kind, enough = script.STAGES[0].mastered

    def ends_at(loss: float) -> int:
        training.stage, training.begun, training.step, training.recent = 0, 0, 0, None
        while training.stage == 0:
            training.step += 1
            training._grow({f"loss_{kind}": loss})
        return training.step

    assert ends_at(enough / 2) == 20  # a mean over some twenty steps
    assert ends_at(enough * 2) == script.STAGES[0].at_most * 10_000


@pytest.mark.process
def test_the_command_writes_weights_that_a_model_starts_from(root, tmp_path):
    command = [sys.executable, str(root / "projects/pretraining/micro.py"), "--out", str(tmp_path / "out")]
    command += ["--steps", "2", "--batch", "4", "--articles", "2", "--asked", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "sha256 of model.safetensors" in done.stdout
    (line,) = (tmp_path / "out" / "log.jsonl").read_text().splitlines()
    assert {"step", "tokens", "loss_see", "name_1", "caption_3"} <= json.loads(line).keys() | {"loss_see"}
    from ealign_plugin.models.families import build_model

    model = build_model({"arch": "ealign_instructblip", "pretrained": str(tmp_path / "out" / "weights")})
    assert next(model.parameters()).dtype == torch.float32
