"""Data sets, model and task of this plugin under LAVIS's own ``runner_iter``, by the command a user types."""

from __future__ import annotations

import json
import math
import re
import socket
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from lavis.common.registry import registry
from lavis.runners import RunnerBase
from omegaconf import OmegaConf

from ealign_plugin.cli import train
from ealign_plugin.models import InstructBlip

pytestmark = pytest.mark.slow

CONFIG: dict[str, Any] = {
    "model": {"arch": "ealign_instructblip", "model_type": "micro"},
    "datasets": {"ealign_micronews": {"world": {"articles": {"train": 12, "val": 2, "test": 4}}}},
    "run": {
        **{"task": "ealign_news_captioning", "runner": "runner_iter"},
        **{"max_iters": 4, "iters_per_inner_epoch": 2, "batch_size_train": 16, "batch_size_eval": 5},
        **{"init_lr": 1.0e-3, "warmup_steps": 2, "log_freq": 1},
        **{"valid_splits": ["val"], "valid_contexts": ["head"], "agg_metric": "rouge"},
        **{"test_splits": ["test"], "contexts": ["head", "refined"], "num_beams": 1, "max_len": 8},
        "context_words": 80,
    },
}


@pytest.fixture
def answered_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What LAVIS 1.0.2 calls without looking whether there is a GPU, and whether there are processes."""
    stream = SimpleNamespace(wait_stream=lambda other: None)
    # PrefetchLoader, datasets/datasets/dataloader_utils.py: around each batch of an evaluation.
    monkeypatch.setattr("torch.cuda.Stream", lambda: stream)  # __init__
    monkeypatch.setattr("torch.cuda.stream", lambda stream: nullcontext())  # preload
    monkeypatch.setattr("torch.cuda.current_stream", lambda: stream)  # next, record_cuda_stream
    monkeypatch.setattr("torch.Tensor.record_stream", lambda tensor, stream: None)  # record_cuda_stream
    monkeypatch.setattr("torch.Tensor.cuda", lambda tensor: tensor)  # move_to_cuda, datasets/data_utils.py
    # RunnerBase.model wraps what it moves: a model that is on the CPU already stays None.
    monkeypatch.setattr(RunnerBase, "model", property(lambda runner: runner._model))
    # RunnerIter.train, after each inner epoch: there is no process group.
    monkeypatch.setattr("torch.distributed.barrier", lambda: None)


@pytest.fixture
def alone_on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torchrun starts one process: RunnerIter.train's barrier needs a group."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    place = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    for name, value in {**place, "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(
    params=[
        "cpu",
        pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")),
    ]
)
def device(request: pytest.FixtureRequest) -> str:
    request.getfixturevalue("answered_on_the_cpu" if request.param == "cpu" else "alone_on_the_gpu")
    return request.param


@pytest.fixture
def run(device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """``run(max_iters=2)`` -> folder of a run by ``lavis.train``, its ``run`` section changed so."""
    for kept in ("state", "paths"):  # of LAVIS's registry, which lasts as long as the process
        monkeypatch.setitem(registry.mapping, kept, dict(registry.mapping[kept]))
    monkeypatch.setattr(
        "ealign_plugin.metrics.builtin.find_java", lambda: None
    )  # METEOR takes ten seconds a context

    def start(**changes: Any) -> Path:
        monkeypatch.chdir(tmp_path)
        config = {**CONFIG, "run": {**CONFIG["run"], "device": device, **changes}}
        Path("stock.yaml").write_text(yaml.safe_dump(config))
        train.run("train", ["--cfg-path", "stock.yaml"])
        return Path("output/ealign_news_captioning/latest").resolve()

    return start


def log(run: Path) -> list[dict]:
    """What follows in log.txt on the config, which LAVIS writes over many lines: an object a line."""
    _, _, lines = (run / "log.txt").read_text().partition("\n}\n")
    return [json.loads(line) for line in lines.splitlines()]


def test_it_trains_validates_and_tests(run, capsys):
    folder = run()
    printed = capsys.readouterr().out
    losses = [float(loss) for loss in re.findall(r"  loss: (\S+)", printed)]
    assert len(losses) == 4 and all(map(math.isfinite, losses))

    lines = log(folder)
    assert [next(iter(line)).partition("_")[0] for line in lines] == ["train", "val", "train", "val"]
    means = [float(line["train_loss"]) for line in lines[::2]]
    assert means == pytest.approx([sum(losses[:2]) / 2, sum(losses[2:]) / 2], abs=1e-3)
    for line in lines[1::2]:
        assert line["val_agg_metrics"] == line["val_head/rouge"] >= 0
        assert 0 < line["val_head/names_held"] < 1
        assert "val_sentence_auc" not in line  # no context of the validation needs pass 1

    assert "16 photos of the split 'test'" in printed
    records = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    keys = [record["key"] for record in records if record["context"] == "head"]
    assert keys == [record["key"] for record in records if record["context"] == "refined"]
    assert len(records) == 2 * len(set(keys)) == 2 * 16


def test_it_writes_checkpoints_that_the_model_reads(run):
    """Without validation LAVIS saves after each inner epoch; with it only where the metric is above 0."""
    folder = run(valid_splits=[], test_splits=[])
    saved = [torch.load(folder / f"checkpoint_{iters}.pth", weights_only=True) for iters in (2, 4)]
    assert [checkpoint["iters"] for checkpoint in saved] == [2, 4]
    config = OmegaConf.create(saved[1]["config"])
    assert config.run.runner == "runner_iter"
    model = InstructBlip.from_config(config.model)
    model.load_state_dict(saved[1]["model"])
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    states = [checkpoint["model"] for checkpoint in saved]
    changed = [name for name in trained if not torch.equal(states[0][name], states[1][name])]
    assert len(changed) > len(trained) / 2
