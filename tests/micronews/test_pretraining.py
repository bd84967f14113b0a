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


@pytest.mark.process
def test_the_command_writes_weights_that_a_model_starts_from(root, tmp_path):
    command = [sys.executable, str(root / "projects/pretraining/micro.py"), "--out", str(tmp_path / "out")]
    command += ["--steps", "2", "--batch", "4", "--articles", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "sha256 of model.safetensors" in done.stdout
    (line,) = (tmp_path / "out" / "log.jsonl").read_text().splitlines()
    assert {"step", "tokens", "loss_see", "name_1", "caption_3"} <= json.loads(line).keys() | {"loss_see"}
    from ealign_plugin.models.families import build_model

    model = build_model({"arch": "ealign_instructblip", "pretrained": str(tmp_path / "out" / "weights")})
    assert next(model.parameters()).dtype == torch.float32
