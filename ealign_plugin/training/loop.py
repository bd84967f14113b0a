"""The training loop: steps, inner epochs, validations, checkpoints."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from ealign_plugin.distributed import all_gather_object
from ealign_plugin.training.accumulation import accumulate
from ealign_plugin.training.bad_batch import report_bad_batches
from ealign_plugin.training.loaders import to_device
from ealign_plugin.training.metric_log import MetricLog
from ealign_plugin.training.options import TrainingOptions
from ealign_plugin.training.precision import Precision
from ealign_plugin.training.progress import progress_bar, progress_line
from ealign_plugin.training.resume import RunCheckpoints
from ealign_plugin.training.run_state import RunState
from ealign_plugin.training.schedule import base_rate
from ealign_plugin.training.signals import Stopped, StopSignals


class Schedule(Protocol):
    """What sets the learning rate before each iteration."""

    def step(self, cur_epoch: int, cur_step: int) -> None:
        """Set the rate of iteration ``cur_step`` of inner epoch ``cur_epoch``, both counted from 0."""


@dataclass(kw_only=True)
class TrainingLoop:
    """Trains a model for ``max_iters`` iterations.

    ::

        iteration     1  2  3  4 | 5  6  7  8 | 9 10        iters_per_inner_epoch 4, max_iters 10
        log_freq 2       ·     ·      ·     ·      ·        "step" lines in log.txt
        ends of inner epochs     ▲            ▲      ▲      "train" line, validation, checkpoint

    All processes of a run call `run` together; a loss that is not finite or a signal ends it in all of them.
    How far it is stands in ``state``: one that was restored from a checkpoint makes it go on from there.

    Args:
        model: As it is called in training, on its device.
        optimizer: Of its parameters.
        schedule: Sets the learning rate.
        batches: Endless.
        loss_of: Model and batch → ``loss`` and other scalars; see `accumulate`.
        validate: Split → figures with ``agg_metrics`` (higher is better) in the first process, there or
            elsewhere None.
        valid_splits: Splits to validate on; the first one's metric says which weights are best.
        checkpoints: Saves the run.
        precision: Of the run.
        state: How far it is.
        log: Of the run.
        signals: Of the run.
        options: Of the run.
        max_iters: Iterations of the run.
        iters_per_inner_epoch: Iterations between validations.
        device: Of the model.
        folder: The run's.
        after_step: Called after each step, before a checkpoint is saved; collective.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    batches: Iterator[dict[str, Any]]
    loss_of: Callable[[nn.Module, dict[str, Any]], Mapping[str, Tensor]]
    validate: Callable[[str], Mapping[str, Any] | None]
    valid_splits: Sequence[str]
    checkpoints: RunCheckpoints
    precision: Precision
    state: RunState
    log: MetricLog
    max_iters: int
    iters_per_inner_epoch: int
    device: torch.device
    folder: Path
    signals: StopSignals = field(default_factory=StopSignals)
    options: TrainingOptions = field(default_factory=TrainingOptions)
    after_step: Callable[[], None] = lambda: None

    def run(self) -> None:
        """Train to the end, from where ``state`` is.

        Raises:
            UserError: a loss is not finite, or a file cannot be written.
            Stopped: a signal was received; a checkpoint was saved.
        """
        state, every = self.state, self.iters_per_inner_epoch
        with logging_redirect_tqdm(), progress_bar(self.max_iters, state.iters) as bar:
            if self.options.validate_at_start and not state.iters:
                self._validate_all()
            while state.iters < self.max_iters or not state.ended:
                first = state.iters if state.ended else state.iters - 1  # an iteration of this inner epoch
                end = min((first // every + 1) * every, self.max_iters)
                if state.iters < end:
                    self.train_until(end, bar)
                self.log.add("train", {"iters": end, **state.inner_epoch.means()})
                metric = self._validate_all()
                state.ended = True
                state.inner_epoch.reset()
                self.checkpoints.save(metric)

    def train_until(self, end: int, bar: tqdm[None] | None = None) -> None:
        """Iterations within one inner epoch, until so many are done.

        Args:
            end: Iterations done at the end.
            bar: To be moved.

        Raises:
            UserError: a loss is not finite, or a file cannot be written.
            Stopped: a signal was received; a checkpoint was saved.
        """
        state, options = self.state, self.options
        model = self.model.train()
        clip = float(options.clip_grad_norm or 0)
        started, waited, tokens = time.time(), 0.0, 0.0
        while state.iters < end:
            epoch, step = divmod(state.iters, self.iters_per_inner_epoch)
            self.schedule.step(cur_epoch=epoch, cur_step=step)
            self.optimizer.zero_grad(set_to_none=True)
            before = time.time()
            batches = [to_device(next(self.batches), self.device) for _ in range(options.accum_grad_iters)]
            waited += time.time() - before
            result = accumulate(
                model,
                batches,
                lambda batch: self.loss_of(model, batch),
                self.precision,
                stop=bool(self.signals.number),
            )
            losses = [
                {name: float(value) for name, value in output.items() if name != "weight"}
                for output in result.outputs
            ]
            if result.bad:
                raise report_bad_batches(self.folder, state.iters, batches, losses)
            if self.precision.step(self.optimizer, model.parameters(), clip).skipped:
                logging.info("Iteration %d: gradients overflowed fp16, a smaller scale is tried", state.iters)
            for values in losses:
                state.window.add(values)
                state.inner_epoch.add(values)
                tokens += values.get("tokens", 0.0)
            state.iters += 1
            state.ended = False
            self.after_step()
            if bar is not None:
                bar.update()
            if state.iters % options.log_freq == 0 or state.iters == end:
                taken = time.time() - started
                self._log_window(bar, tokens / taken, waited / taken)
            if result.stop:
                self._save_and_stop()
            if options.save_freq and state.iters % options.save_freq == 0 and state.iters < end:
                self.checkpoints.save()

    def _log_window(self, bar: tqdm[None] | None, tokens_per_second: float, waiting: float) -> None:
        """A "step" line, and the words behind the bar."""
        means = self.state.window.means()
        self.state.window.reset()
        self.log.add("step", {"iters": self.state.iters, "lr": base_rate(self.optimizer), **means})
        if bar is not None:
            bar.set_postfix_str(
                progress_line(means, tokens_per_second=tokens_per_second, waiting=waiting, device=self.device)
            )

    def _validate_all(self) -> float | None:
        """Validate; the metric of the first split, None where there is none."""
        try:
            metrics = [self._validate(split) for split in self.valid_splits]
        except Stopped:
            self.checkpoints.save()  # the validation is made up for when the run goes on
            raise
        return metrics[0] if metrics else None

    def _validate(self, split: str) -> float:
        figures = self.validate(split)
        metric = all_gather_object(figures and figures["agg_metrics"])[0]
        if split == self.valid_splits[0]:
            self.state.note_validation(metric)
        if figures is not None:
            iters, best = self.state.iters, self.state.best_iters
            logging.info(
                "Validation on %r after %d steps: agg_metrics %.4f (best: %d)", split, iters, metric, best
            )
            self.log.add(split, {"iters": iters, **figures, "best_iters": best})
        return metric

    def _save_and_stop(self) -> None:
        """All processes agree that one of them was asked to stop."""
        self.checkpoints.save()
        number = self.signals.number or signal.SIGTERM
        logging.warning(
            "Stopped by %s after %d steps; the checkpoint is in %s. With run.resume: auto the same command "
            "goes on; else name the checkpoint by run.resume_ckpt_path",
            *(signal.Signals(number).name, self.state.iters, self.checkpoints.store.folder),
        )
        raise Stopped(number)
