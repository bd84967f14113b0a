"""The loop on a model of one weight, without LAVIS: what is logged, validated and saved when."""

from __future__ import annotations

import itertools
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from ealign_plugin.data.streams.batches import TrainingBatches
from ealign_plugin.errors import UserError
from ealign_plugin.training.checkpoints.store import CheckpointStore
from ealign_plugin.training.loop import TrainingLoop
from ealign_plugin.training.metric_log import MetricLog
from ealign_plugin.training.options import TrainingOptions
from ealign_plugin.training.precision import Precision
from ealign_plugin.training.resume import RunCheckpoints
from ealign_plugin.training.run_state import RunState

CPU = torch.device("cpu")


class Weight(nn.Module):
    """Learns y = 3 x."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(()))

    def load_checkpoint(self, path: Path) -> None:
        self.load_state_dict(load_file(path))


class Numbers(IterableDataset):
    def __iter__(self) -> Iterator[dict[str, Any]]:
        generator = torch.Generator().manual_seed(0)
        for number in itertools.count():
            yield {"x": torch.rand((), generator=generator), "key": f"sample {number}"}


class ConstantRate:
    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []

    def step(self, cur_epoch: int, cur_step: int) -> None:
        self.steps.append((cur_epoch, cur_step))


def loss_of(model: nn.Module, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {"loss": ((model.w * batch["x"] - 3 * batch["x"]) ** 2).mean(), "tokens": torch.tensor(5.0)}


def make(folder: Path, metrics=(), splits=("val",), **changes: Any) -> TrainingLoop:
    """A loop of 5 iterations, 2 an inner epoch, that is validated with these metrics one after the other."""
    folder.mkdir(exist_ok=True)
    given = iter(metrics)
    model, precision, state = Weight(), Precision(False, CPU), RunState()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    options = changes.pop("options", TrainingOptions(log_freq=1))
    batches = TrainingBatches({"numbers": DataLoader(Numbers(), batch_size=4)})
    values = {
        "model": model,
        "optimizer": optimizer,
        "schedule": ConstantRate(),
        "batches": batches,
        "loss_of": loss_of,
        "validate": lambda split: {"agg_metrics": next(given)},
        "valid_splits": splits,
        "checkpoints": RunCheckpoints(
            store=CheckpointStore(folder / "checkpoints", keep_last=9),
            model=model,
            optimizer=optimizer,
            batches=batches,
            precision=precision,
            state=state,
            config={"run": {"max_iters": 5}},
            files=lambda: {"captioning.json": b"{}"},
        ),
        "precision": precision,
        "state": state,
        "log": MetricLog(folder),
        "options": options,
        "max_iters": 5,
        "iters_per_inner_epoch": 2,
        "device": CPU,
        "folder": folder,
    }
    return TrainingLoop(**{**values, **changes})


def lines(loop: TrainingLoop) -> list[str]:
    rows = map(json.loads, (loop.folder / "log.txt").read_text().splitlines())
    return [f"{row['split']} {row['iters']}" for row in rows]


def saved(loop: TrainingLoop) -> list[str]:
    return sorted(path.name for path in loop.checkpoints.store.folder.glob("iter_*"))


def test_steps_inner_epochs_validations_and_checkpoints(tmp_path):
    loop = make(tmp_path, [0.1, 0.3, 0.2])
    loop.run()
    assert lines(loop) == [
        *("step 1", "step 2", "train 2", "val 2"),
        *("step 3", "step 4", "train 4", "val 4"),
        *("step 5", "train 5", "val 5"),  # the last inner epoch may be shorter
    ]
    assert saved(loop) == ["iter_000002", "iter_000004", "iter_000005"]
    assert (loop.state.iters, loop.state.best_iters) == (5, 4)
    assert loop.checkpoints.store.best().iters == 4
    assert loop.schedule.steps == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]


def test_it_learns(tmp_path):
    loop = make(tmp_path, splits=(), max_iters=40, iters_per_inner_epoch=40)
    loop.run()
    assert loop.model.w.item() == pytest.approx(3, abs=0.5)


def test_log_lines_hold_means_since_the_one_before(tmp_path):
    loop = make(tmp_path, splits=(), options=TrainingOptions(log_freq=2), iters_per_inner_epoch=5)
    every = make(tmp_path / "every", splits=(), iters_per_inner_epoch=5)
    for each in (loop, every):
        each.run()
    rows, single = (
        [json.loads(line) for line in (each.folder / "log.txt").read_text().splitlines()]
        for each in (loop, every)
    )
    assert lines(loop) == ["step 2", "step 4", "step 5", "train 5"]
    losses = [row["loss"] for row in single[:5]]
    assert rows[1]["loss"] == pytest.approx((losses[2] + losses[3]) / 2)
    assert rows[3]["loss"] == pytest.approx(sum(losses) / 5)
    assert rows[0]["tokens"] == 5 and rows[0]["lr"] == 0.1


def test_further_files_are_in_each_checkpoint(tmp_path):
    loop = make(tmp_path, splits=())
    loop.run()
    files = [tmp_path / "checkpoints" / name / "captioning.json" for name in saved(loop)]
    assert [file.read_bytes() for file in files] == [b"{}"] * 3


def test_checkpoints_between_validations(tmp_path):
    loop = make(tmp_path, [0.1], iters_per_inner_epoch=5, options=TrainingOptions(log_freq=1, save_freq=2))
    loop.run()
    assert saved(loop) == ["iter_000002", "iter_000004", "iter_000005"]


def test_a_validation_before_the_first_step_is_never_the_best(tmp_path):
    options = TrainingOptions(log_freq=5, validate_at_start=True)
    loop = make(tmp_path, [0.9, 0.1], options=options, iters_per_inner_epoch=5)
    loop.run()
    assert lines(loop)[0] == "val 0"
    assert loop.state.best_iters == 5


def test_only_the_first_split_says_which_weights_are_best(tmp_path):
    loop = make(tmp_path, [0.3, 0.1, 0.2, 0.9], splits=("val", "other"), max_iters=4)
    loop.run()
    assert loop.state.best_iters == 2


def test_a_signal_saves_and_stops_and_the_run_goes_on_from_there(tmp_path):
    whole = make(tmp_path / "whole", [0.1, 0.2, 0.3])
    whole.run()

    loop = make(tmp_path / "stopped", [0.1, 0.2, 0.3])

    def interrupted(model: nn.Module, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        if loop.state.iters == 2:
            signal.raise_signal(signal.SIGTERM)
        return loss_of(model, batch)

    loop.loss_of = interrupted
    with loop.signals.listening(), pytest.raises(SystemExit) as stopped:
        loop.run()
    assert stopped.value.code == 128 + signal.SIGTERM
    assert saved(loop)[-1] == f"iter_{loop.state.iters:06d}"

    rest = make(tmp_path / "stopped", [0.2, 0.3])
    rest.checkpoints.restore(rest.checkpoints.find(None, newest_of_run=True))
    rest.log.cut(rest.state.iters, rest.state.ended)
    rest.run()
    assert torch.equal(rest.model.w, whole.model.w)
    assert (rest.folder / "log.txt").read_text() == (whole.folder / "log.txt").read_text()


def test_a_loss_that_is_not_finite_stops_it_before_the_step(tmp_path):
    loop = make(tmp_path, loss_of=lambda model, batch: {"loss": model.w / 0 * 0})
    with pytest.raises(UserError, match="iteration 0: the loss is nan; .*sample 0, sample 1"):
        loop.run()
    assert loop.model.w.item() == 0 and loop.state.iters == 0


def test_without_a_checkpoint_the_run_begins_anew(tmp_path, caplog):
    loop = make(tmp_path)
    assert loop.checkpoints.find(None) is None
    assert loop.checkpoints.find(None, newest_of_run=True) is None
    (tmp_path / "checkpoints" / "iter_000003").mkdir(parents=True)
    assert loop.checkpoints.find(None, newest_of_run=True) is None
    assert "no whole checkpoint in it, the run begins anew" in caplog.text
    with pytest.raises(UserError, match="no such file or folder"):
        loop.checkpoints.find(tmp_path / "gone")


def test_a_checkpoint_without_the_place_of_the_data_is_refused(tmp_path):
    loop = make(tmp_path)
    parts = loop.checkpoints
    parts.store.save(
        parts.model,
        parts.optimizer,
        iters=1,
        metric=None,
        values={},
        per_rank={},
        manifest={"config": parts.config},
    )
    with pytest.raises(UserError, match="the position in the training data is missing in it; start anew"):
        parts.restore(parts.find(None, newest_of_run=True))
