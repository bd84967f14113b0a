"""The runner on a model of one weight: the loop, the checkpoints, what it refuses."""

from __future__ import annotations

import json
import logging
import math
import signal

import pytest
import torch
from safetensors.torch import load_file, save_file

from ealign_plugin.errors import UserError
from ealign_plugin.registered.runner import EalignRunner
from tests.registered.factories import Constant, Few, Numbers, Task, Weight, interrupt_step


def weights(runner: EalignRunner, which: str = "last") -> dict[str, torch.Tensor]:
    return load_file(runner.folder / "checkpoints" / which / "weights.safetensors")


def log(runner: EalignRunner) -> list[dict]:
    return [json.loads(line) for line in (runner.output_dir / "log.txt").read_text().splitlines()]


def test_the_best_weights_are_tested_not_the_last(make):
    runner = make(task := Task([0.1, 0.7, 0.3]))
    runner.train()
    best = weights(runner, "best")["w"].item()
    last = weights(runner)["w"].item()
    assert runner.state.best_iters == 4
    assert task.tested_with == pytest.approx(best) and best != last


def test_the_task_is_told_which_evaluation_is_a_validation(make):
    class Listening(Task):
        def before_evaluation(self, model, dataset, validates=None, **_):
            super().before_evaluation(model, dataset)
            heard.append(validates)

    heard: list[bool] = []
    make(Listening([0.1, 0.7, 0.3])).train()
    assert heard == [True, True, True, False]


def test_a_metric_of_zero_can_be_the_best(make):
    runner = make(Task([0.0, 0.0, 0.0]))
    runner.train()
    assert runner.state.best_iters == 2


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
        runner.optimizer.step = lambda runner=runner: gradients.append(runner.model.w.grad.clone())
        runner.train()
    torch.testing.assert_close(gradients[0], gradients[1])


def test_gradients_are_clipped(make):
    runner = make(Task([0.1]), clip_grad_norm=0.01, max_iters=1, iters_per_inner_epoch=1)
    norms = []
    runner.optimizer.step = lambda: norms.append(runner.model.w.grad.norm().item())
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
    rest = make(Task([0.2, 0.3]), resume_ckpt_path=str(first.folder))
    rest.train()
    assert rest.start_iters == 2
    one, two = (weights(r)["w"] for r in (whole, rest))
    assert torch.equal(one, two)


def test_resuming_from_weights_alone_is_refused(make, tmp_path):
    save_file({"w": torch.zeros(1, 1)}, tmp_path / "best.safetensors")
    runner = make(Task(), resume_ckpt_path=str(tmp_path / "best.safetensors"))
    with pytest.raises(UserError, match="a file without manifest.json beside it; to resume give"):
        runner.train()


@pytest.mark.parametrize("kill_after", [1, 2, 3, 4, 5])
def test_stopped_after_any_step_a_run_goes_on_with_the_same_log_and_weights(make, kill_after):
    options = {"log_freq": 2, "iters_per_inner_epoch": 3, "save_freq": 1, "resume": "auto"}
    whole = make(Task([0.1, 0.2]), **options)
    whole.train()
    first = make(task := Task([0.1, 0.2]), **options)
    interrupt_step(first, kill_after)
    with pytest.raises(KeyboardInterrupt):
        first.train()
    rest = make(task, name=first.folder.name, **options)
    rest.train()
    assert rest.start_iters == kill_after - 1
    assert log(rest) == log(whole)
    assert torch.equal(weights(rest)["w"], weights(whole)["w"])
    assert rest.state.best_iters == whole.state.best_iters
    metrics = [json.loads((r.folder / "metrics.json").read_text()) for r in (whole, rest)]
    assert metrics[0] == metrics[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_and_ends_the_run_with_the_code_that_schedulers_know(make, number, caplog):
    options = {"iters_per_inner_epoch": 6, "resume": "auto"}
    whole = make(Task([0.1]), **options)
    whole.train()
    stopped = make(task := Task([0.1]), **options)
    step = stopped.optimizer.step

    def stepping():
        step()
        if stopped.state.iters == 1:
            signal.raise_signal(number)

    stopped.optimizer.step = stepping
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as ended:
        stopped.train()
    assert ended.value.code == 128 + number
    assert signal.getsignal(number) == before
    assert f"Stopped by {number.name} after 3 steps" in caplog.text
    rest = make(task, name=stopped.folder.name, **options)
    rest.train()
    assert rest.start_iters == 3
    assert log(rest) == log(whole)


def test_a_signal_during_the_validation_saves_too_and_the_validation_is_made_up_for(make):
    whole = make(Task([0.1, 0.2]), max_iters=4, resume="auto")
    whole.train()

    class Interrupted(Task):
        def evaluation(self, model, data_loader, **_):
            if len(self.metrics) == 1:
                signal.raise_signal(signal.SIGTERM)
            return super().evaluation(model, data_loader)

    stopped = make(Interrupted([0.1, 0.2]), max_iters=4, resume="auto")
    with pytest.raises(SystemExit):
        stopped.train()
    rest = make(Task([0.2]), name=stopped.folder.name, max_iters=4, resume="auto")
    rest.train()
    assert rest.start_iters == 4
    assert log(rest) == log(whole)
    assert rest.state.best_iters == whole.state.best_iters == 4


def test_without_an_interrupted_run_auto_begins_anew(make, caplog):
    caplog.set_level(logging.INFO)
    runner = make(Task([0.1, 0.2, 0.3]), resume="auto")
    runner.train()
    assert runner.start_iters == 0
    assert "run.resume: auto: no checkpoint of this config was found" in caplog.text


def test_a_broken_newest_checkpoint_is_passed_over(make, caplog):
    first = make(Task([0.1, 0.2, 0.3]), resume="auto")
    first.train()
    newest = first.store.newest()
    newest.weights.write_bytes(newest.weights.read_bytes()[:-1])
    rest = make(Task([0.3]), name=first.folder.name, resume="auto")
    rest.train()
    assert rest.start_iters == 4
    assert str(newest.weights) in caplog.text


def test_a_checkpoint_of_other_data_is_refused(make):
    first = make(Task([0.1, 0.2, 0.3]))
    first.train()
    rest = make(Task(), resume_ckpt_path=str(first.folder), batch_size_train=2)
    with pytest.raises(UserError, match="run.batch_size_train: 4 when the checkpoint was saved, 2 now"):
        rest.train()


def test_a_full_disk_stops_the_run_and_leaves_the_older_checkpoint(make, monkeypatch):
    runner = make(Task([0.1, 0.2, 0.3]), resume="auto")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    save = runner.store.save

    def saving(*arguments, **options):
        if options["iters"] == 6:
            monkeypatch.setattr("ealign_plugin.training.checkpoints.tensors.save_file", full)
        save(*arguments, **options)

    runner.store.save = saving
    with pytest.raises(UserError, match="checkpoint of iteration 6: .*No space left on device"):
        runner.train()
    assert runner.store.newest().iters == 4
    assert sorted(path.name for path in runner.store.folder.glob("iter*")) == ["iter_000002", "iter_000004"]


def test_as_many_checkpoints_stay_as_the_config_says(make):
    runner = make(Task([0.9, 0.2, 0.3]), keep_last=1)
    runner.train()
    assert sorted(p.name for p in runner.store.folder.glob("iter*")) == ["iter_000002", "iter_000006"]


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
        resume_ckpt_path=str(first.folder),
    )
    rest.train()
    expected = [line for line in log(whole) if line["split"] == "step" and line["iters"] > 8]
    assert [line for line in log(rest) if line["split"] == "step"] == expected
    one, two = (weights(r)["w"] for r in (whole, rest))
    assert torch.equal(one, two)


def test_a_task_adds_files_to_each_checkpoint(make):
    class Described(Task):
        def checkpoint_files(self):
            return {"captioning.json": b'{"beams": 5}'}

    runner = make(Described([0.1, 0.2, 0.3]))
    runner.train()
    for name in ("last", "best"):
        folder = runner.folder / "checkpoints" / name
        assert (folder / "captioning.json").read_bytes() == b'{"beams": 5}'
        assert "captioning.json" in json.loads((folder / "manifest.json").read_text())["files"]


def test_what_the_task_settles_before_the_test_is_kept_with_the_tested_checkpoint(make):
    class Settling(Task):
        settled = None

        def checkpoint_files(self):
            return {"captioning.json": b"auto"}

        def prepare_test(self, model, folder, validation):
            assert not model.training and len(list(validation[1])) == 2 and len(validation[0]) == 3
            self.settled = (float(model.w.detach()), folder)
            known = (folder / "captioning.json").read_bytes()
            return {"captioning.json": b"0.7"} if known == b"auto" else {}

    runner = make(task := Settling([0.1, 0.7, 0.3]), resume="auto")
    runner.train()
    assert task.settled == (task.tested_with, runner.store.best().folder)
    content = {name: runner.folder / "checkpoints" / name / "captioning.json" for name in ("best", "last")}
    assert {name: file.read_bytes() for name, file in content.items()} == {"best": b"0.7", "last": b"auto"}
    assert runner.store.best().iters == 4  # it is whole
    make(task := Settling([]), name=runner.folder.name, resume="auto").train()  # interrupted in its test
    assert task.settled[1] == runner.store.best().folder and content["best"].read_bytes() == b"0.7"
    last = str(runner.folder / "checkpoints" / "last")
    make(task := Settling([]), evaluate=True, resume_ckpt_path=last).train()
    assert task.settled[1].name == "iter_000006" and content["last"].read_bytes() == b"auto"  # not ours


def test_what_the_task_doubts_stands_in_the_log_before_the_first_step(make):
    class Doubtful(Task):
        def doubts(self, weights):
            return [f"run.contexts: found full, weights {weights}"]

    runner = make(Doubtful([0.1, 0.2, 0.3]))
    runner.train()
    first = (runner.folder / "console.log").read_text().splitlines()[0]
    assert first.endswith("[WARNING] run.contexts: found full, weights None")
    tested = make(Doubtful(), evaluate=True, resume_ckpt_path=str(runner.folder))
    tested.train()
    best = (runner.folder / "checkpoints" / "best").resolve() / "weights.safetensors"
    assert (
        f"[WARNING] run.contexts: found full, weights {best}" in (tested.folder / "console.log").read_text()
    )


def test_a_budget_in_tokens_is_counted_by_the_model_from_the_first_batch_on(make):
    class Counting(Numbers):
        counter = None

        def count_tokens_with(self, counter):
            self.counter = counter

        def __iter__(self):
            assert self.counter("three") == 5
            yield from super().__iter__()

    class Counter(Weight):
        def count_tokens(self, text):
            return len(text)

    stream = Counting()
    sets = {"numbers": {"train": stream, "val": Few(), "test": Few()}}
    make(Task([0.1] * 3), Counter(), sets, context_tokens=900).train()
    assert stream.counter is not None
    other = {"numbers": {"train": Numbers(), "val": Few(), "test": Few()}}
    make(Task([0.1] * 3), Counter(), other, context_tokens=900).train()  # it has no contexts


def test_options_of_the_config_have_one_default_and_their_help():
    assert EalignRunner.RUN_DEFAULTS["clip_grad_norm"] == 1.0
    assert set(EalignRunner.RUN_DEFAULTS) == set(EalignRunner.RUN_KEYS) > set(EalignRunner.RUN_RANGES)


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
