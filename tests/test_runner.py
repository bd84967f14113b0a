"""The runner on a model of one weight: the loop, the checkpoints, what it refuses."""

from __future__ import annotations

import json
import logging
import math

import pytest
import torch
from lavis.common.registry import registry
from lavis.tasks.base_task import BaseTask
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import Dataset, IterableDataset

from ealign_plugin.errors import UserError
from ealign_plugin.runner import EalignRunner, RankSampler


class Weight(nn.Module):
    """Learns y = 3 x; its only checkpoint format is safetensors."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1, 1))

    def forward(self, samples):
        return {"loss": ((self.w[0] * samples["x"] - 3 * samples["x"]) ** 2).mean()}

    def load_checkpoint(self, path):
        self.load_state_dict(load_file(path))


class Numbers(IterableDataset):
    def __iter__(self):
        generator = torch.Generator().manual_seed(0)
        while True:
            yield {"x": torch.rand(1, generator=generator)}


class Few(Dataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return {"x": torch.ones(1)}


class Task(BaseTask):
    """Scores a validation by a list that the test gives."""

    def __init__(self, metrics=()):
        super().__init__()
        self.metrics, self.tested_with = list(metrics), None

    def before_evaluation(self, model, dataset, **_):
        self.weight = float(model.w.detach())

    def evaluation(self, model, data_loader, **_):
        return [batch for batch in data_loader]

    def after_evaluation(self, val_result, split_name, epoch, **_):
        if split_name == "test":
            self.tested_with = self.weight
        return {"agg_metrics": self.metrics.pop(0) if split_name == "val" else 0.0}


@pytest.fixture
def make(tmp_path, monkeypatch):
    """``make(task, **run)`` -> a runner in a folder of its own."""
    made = []

    def build(task: Task, model: Weight | None = None, datasets=None, **run) -> EalignRunner:
        values = {
            **{"device": "cpu", "distributed": False, "evaluate": False, "num_workers": 0, "seed": 0},
            **{"max_iters": 6, "iters_per_inner_epoch": 2, "batch_size_train": 4, "batch_size_eval": 2},
            **{
                "init_lr": 0.1,
                "min_lr": 0.1,
                "weight_decay": 0.0,
                "lr_sched": "ealign_cosine",
                "log_freq": 1,
            },
            **{"train_splits": ["train"], "valid_splits": ["val"], "test_splits": ["test"]},
            **{"output_dir": str(tmp_path), "clip_grad_norm": 1.0},
            **run,
        }
        config = OmegaConf.create({"run": values})
        monkeypatch.setitem(registry.mapping["state"], "configuration", config)
        config.run_cfg = config.run
        for name in ("output_dir", "result_dir"):
            registry.mapping["paths"].pop(name, None)
        sets = datasets or {"numbers": {"train": Numbers(), "val": Few(), "test": Few()}}
        torch.manual_seed(0)
        made.append(EalignRunner(config, task, model or Weight(), sets, f"run{len(made)}"))
        return made[-1]

    yield build
    for handler in list(logging.getLogger().handlers):
        if isinstance(handler, logging.FileHandler):
            logging.getLogger().removeHandler(handler)


def log(runner: EalignRunner) -> list[dict]:
    return [json.loads(line) for line in (runner.output_dir / "log.txt").read_text().splitlines()]


def test_the_best_weights_are_tested_not_the_last(make):
    runner = make(task := Task([0.1, 0.7, 0.3]))
    runner.train()
    best = load_file(runner.output_dir / "checkpoint_best.safetensors")["w"].item()
    last = load_file(runner.output_dir / "checkpoint_last.safetensors")["w"].item()
    assert runner.best_iters == 4
    assert task.tested_with == pytest.approx(best) and best != last


def test_a_metric_of_zero_can_be_the_best(make):
    runner = make(Task([0.0, 0.0, 0.0]))
    runner.train()
    assert runner.best_iters == 2


def test_the_last_inner_epoch_may_be_shorter(make):
    runner = make(Task([0.1, 0.2]), max_iters=3)
    runner.train()
    assert [line["iters"] for line in log(runner) if line["split"] == "step"] == [1, 2, 3]


def test_accumulated_gradients_are_averaged(make):
    """Two batches of four, accumulated, move the weight as one batch of eight does."""
    whole = make(Task([0.1]), batch_size_train=8, max_iters=1, iters_per_inner_epoch=1, clip_grad_norm=0)
    halves = make(
        Task([0.1]),
        batch_size_train=4,
        accum_grad_iters=2,
        max_iters=1,
        iters_per_inner_epoch=1,
        clip_grad_norm=0,
    )
    gradients = []
    for runner in (whole, halves):
        runner.optimizer.step = lambda runner=runner: gradients.append(runner._model.w.grad.clone())
        runner.train()
    torch.testing.assert_close(gradients[0], gradients[1])


def test_gradients_are_clipped(make):
    runner = make(Task([0.1]), clip_grad_norm=0.01, max_iters=1, iters_per_inner_epoch=1)
    norms = []
    runner.optimizer.step = lambda: norms.append(runner._model.w.grad.norm().item())
    runner.train()
    assert norms[0] == pytest.approx(0.01, rel=1e-3)


def test_a_loss_that_is_not_finite_stops_the_run_with_its_samples(make):
    class Broken(Weight):
        def forward(self, samples):
            return {"loss": self.w.sum() * math.nan}

    class Keyed(Numbers):
        def __iter__(self):
            return ({**item, "key": "bad_7"} for item in super().__iter__())

    runner = make(Task(), Broken(), {"numbers": {"train": Keyed(), "val": Few()}})
    with pytest.raises(UserError, match=r"iteration 0: the loss is nan.*bad_7"):
        runner.train()


def test_a_resumed_run_ends_in_the_same_weights(make):
    whole = make(Task([0.1, 0.2, 0.3]))
    whole.train()
    first = make(Task([0.1]))
    first.max_iters = 2
    first.train()
    rest = make(Task([0.2, 0.3]), resume_ckpt_path=str(first.output_dir / "checkpoint_last.safetensors"))
    rest.train()
    assert rest.start_iters == 2
    one, two = (load_file(r.output_dir / "checkpoint_last.safetensors")["w"] for r in (whole, rest))
    assert torch.equal(one, two)


def test_resuming_from_weights_alone_is_refused(make, tmp_path):
    save_file({"w": torch.zeros(1, 1)}, tmp_path / "best.safetensors")
    runner = make(Task(), resume_ckpt_path=str(tmp_path / "best.safetensors"))
    with pytest.raises(UserError, match=r"best.state.pt: no such file; resume from checkpoint_last"):
        runner.train()


def test_a_state_that_would_run_code_is_refused(make, tmp_path):
    import pickle

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    save_file({"w": torch.zeros(1, 1)}, tmp_path / "c.safetensors")
    (tmp_path / "c.state.pt").write_bytes(pickle.dumps(Evil()))
    runner = make(Task(), resume_ckpt_path=str(tmp_path / "c.safetensors"))
    with pytest.raises(UserError, match="c.state.pt: it cannot be read"):
        runner.train()
    assert not (tmp_path / "owned").exists()


def test_a_full_disk_leaves_the_older_checkpoint_whole(make, monkeypatch):
    runner = make(Task([0.1, 0.2, 0.3]))
    runner.train()
    path = runner.output_dir / "checkpoint_last.safetensors"
    before = path.read_bytes()

    def full(weights, part, metadata):
        part.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ealign_plugin.runner.save_file", full)
    with pytest.raises(UserError, match="checkpoint_last.safetensors: it cannot be written .No space left"):
        runner._save_checkpoint(6)
    assert path.read_bytes() == before
    assert not [file for file in runner.output_dir.iterdir() if file.name.startswith(".")]


def test_checkpoints_have_the_permissions_of_other_files(make):
    runner = make(Task([0.1, 0.2, 0.3]))
    runner.train()
    modes = {file.stat().st_mode for file in runner.output_dir.iterdir() if file.is_file()}
    assert len(modes) == 1


def test_a_checkpoint_without_the_place_of_the_data_is_refused(make):
    first = make(Task([0.1, 0.2, 0.3]))
    first.train()
    path = first.output_dir / "checkpoint_last.state.pt"
    state = torch.load(path, weights_only=True)
    del state["streams"]
    torch.save(state, path)
    runner = make(Task(), resume_ckpt_path=str(first.output_dir / "checkpoint_last.safetensors"))
    with pytest.raises(UserError, match=r"the place of the training data \(streams\) is missing"):
        runner.train()


def test_a_checkpoint_of_other_processes_is_refused(make):
    first = make(Task([0.1, 0.2, 0.3]))
    first.train()
    path = first.output_dir / "checkpoint_last.state.pt"
    state = torch.load(path, weights_only=True)
    torch.save(
        {
            **state,
            "streams": [text.replace('"processes": 1', '"processes": 2') for text in state["streams"] * 2],
        },
        path,
    )
    runner = make(Task(), resume_ckpt_path=str(first.output_dir / "checkpoint_last.safetensors"))
    with pytest.raises(UserError, match="processes: 2 when the checkpoint was saved, 1 now"):
        runner.train()


class Constant(Numbers):
    """x = 1 or x = 2: a batch tells its data set by its loss."""

    def __init__(self, x: float) -> None:
        self.x = x

    def __iter__(self):
        while True:
            yield {"x": torch.full((1,), self.x)}


@pytest.mark.parametrize(("ratios", "expected"), [(None, {9.0, 36.0}), ({"one": 1, "two": 0}, {9.0})])
def test_batches_come_from_all_data_sets_by_their_weights(make, ratios, expected):
    sets = {"one": {"train": Constant(1.0), "val": Few()}, "two": {"train": Constant(2.0)}}
    runner = make(Task([0.1] * 10), datasets=sets, train_dataset_ratios=ratios, test_splits=[], max_iters=20)
    runner.optimizer.step = lambda: None  # the weight stays 0: the loss is (3 x)²
    runner.train()
    assert {line["loss"] for line in log(runner) if line["split"] == "step"} == expected


def test_a_resumed_run_draws_on_from_all_data_sets(make):
    def sets():
        return {"one": {"train": Constant(1.0), "val": Few(), "test": Few()}, "two": {"train": Constant(2.0)}}

    whole = make(Task([0.1] * 10), datasets=sets(), max_iters=20)
    whole.train()
    first = make(Task([0.1] * 10), datasets=sets(), max_iters=20)
    first.max_iters = 8
    first.train()
    rest = make(
        Task([0.1] * 10),
        datasets=sets(),
        max_iters=20,
        resume_ckpt_path=str(first.output_dir / "checkpoint_last.safetensors"),
    )
    rest.train()
    expected = [line for line in log(whole) if line["split"] == "step" and line["iters"] > 8]
    assert [line for line in log(rest) if line["split"] == "step"] == expected
    one, two = (load_file(r.output_dir / "checkpoint_last.safetensors")["w"] for r in (whole, rest))
    assert torch.equal(one, two)


def test_several_data_sets_of_one_evaluated_split_are_refused_in_one_line(make):
    sets = {"one": {"train": Numbers(), "val": Few()}, "two": {"val": Few()}}
    runner = make(Task(), datasets=sets)
    with pytest.raises(UserError, match=r"found one, two for 'val', one data set expected.*two: splits"):
        runner.train()
    make(Task([]), datasets=sets, valid_splits=[], test_splits=[]).train()  # it is not evaluated


def test_training_without_any_training_split_is_refused(make):
    runner = make(Task(), datasets={"one": {"val": Few()}})
    with pytest.raises(UserError, match="found no split 'train' in any of them"):
        runner.train()


@pytest.mark.parametrize(("samples", "ranks"), [(10, 3), (2, 4), (0, 2), (7, 1)])
def test_ranks_share_a_split_without_padding(samples, ranks):
    parts = [list(RankSampler(range(samples), rank, ranks)) for rank in range(ranks)]
    assert sorted(sum(parts, [])) == list(range(samples))
