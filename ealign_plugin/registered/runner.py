"""The runner ``ealign_runner``: LAVIS's RunnerIter, mended, on CPUs or GPUs, one process or many.

What is mended, and where LAVIS 1.0.2 has the defect, stands at each override. What a run leaves in its
folder::

    config.yaml   environment.json   console.log   log.txt (one JSON object a line)   metrics.json
    checkpoints/last, best → iter_000400/…       (see `ealign_plugin.training.checkpoints`)
    predictions.jsonl   report.txt               (written by the task)
    bad_batch.json                               (of a run that stopped because a loss was not finite)

With ``run.resume: auto`` a run that was interrupted, even by ``kill -9``, goes on by the same command and
logs what it would have logged.
"""

from __future__ import annotations

import json
import logging
import math
import resource
import signal
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from lavis.common.dist_utils import get_rank, get_world_size, is_main_process, main_process
from lavis.datasets.data_utils import apply_to_sample
from lavis.runners.runner_iter import RunnerIter
from omegaconf import OmegaConf
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from ealign_plugin.data.streams.batches import TrainingBatches
from ealign_plugin.distributed import all_gather_object
from ealign_plugin.errors import UserError
from ealign_plugin.files import atomic_write
from ealign_plugin.host.environment import code_revision
from ealign_plugin.host.registration import registered
from ealign_plugin.training.accumulation import accumulate
from ealign_plugin.training.checkpoints.manifest import FOLDER, Checkpoint
from ealign_plugin.training.checkpoints.rng import pack_rng, unpack_rng
from ealign_plugin.training.checkpoints.same_config import check_config
from ealign_plugin.training.checkpoints.store import CheckpointStore, find, weights_of
from ealign_plugin.training.checkpoints.tensors import load_weights
from ealign_plugin.training.optimizer import parameter_groups
from ealign_plugin.training.precision import Precision
from ealign_plugin.training.sharding import KINDS, unsharded, wrap

STOPPING = (signal.SIGTERM, signal.SIGUSR1)
"""Of schedulers that are about to take the machine away."""


GRACE = 20
"""Seconds that a data worker reads on after SIGTERM: schedulers send it to all processes of a job."""


@registered("runner", "ealign_runner")
class EalignRunner(RunnerIter):
    """RunnerIter for streams, one process or many, with checkpoints that are whole or absent."""

    GOES_ON = True  # in the folder of an interrupted run (see `ealign_plugin.host.run_folder`)
    RUN_DEFAULTS = {
        "accum_grad_iters": 1,
        "amp": False,
        "beta1": 0.9,
        "clip_grad_norm": 1.0,
        "keep_best": 1,
        "keep_last": 2,
        "log_freq": 50,
        "lr_sched": "ealign_cosine",
        "lrs": {},
        "parallel": "ddp",
        "resume": None,
        "save_freq": None,
        "validate_at_start": False,
    }
    RUN_KEYS = {
        "beta1": "AdamW's first beta (LAVIS reads only beta2)",
        "clip_grad_norm": "largest norm of the gradients; 0 turns clipping off",
        "keep_best": "so many checkpoints with the best validation stay",
        "keep_last": "so many of the newest checkpoints stay",
        "lrs": "learning rates of parts that have one of their own: {llm: 1.0e-5}",
        "parallel": "of several processes: ddp: each holds the model; fsdp: each holds a part of it",
        "resume": "auto: go on with the newest interrupted run of this config if there is one; null: don't",
        "save_freq": "steps between checkpoints; null: one after each validation",
        "validate_at_start": "validate before the first step too",
    }
    RUN_CHOICES = {
        "amp": (False, True, "bf16", "fp16"),
        "parallel": KINDS,
        "resume": (None, "auto"),
    }

    # Declared by RunnerBase without types.
    datasets: dict[str, Any]
    _model: nn.Module
    _wrapped_model: nn.Module | None
    _optimizer: torch.optim.Optimizer | None
    _dataloaders: dict[str, Iterable[Any]] | None

    def __init__(self, cfg: Any, task: Any, model: nn.Module, datasets: dict[str, Any], job_id: str) -> None:
        super().__init__(cfg, task, model, datasets, job_id)
        run = cfg.run_cfg
        self.folder = Path(self.output_dir)
        self.store = CheckpointStore(
            self.folder / FOLDER, int(run.get("keep_last", 2)), int(run.get("keep_best", 1))
        )
        self.precision = Precision(run.get("amp"), self.device)
        self.history: list[dict[str, Any]] = []
        self.best_iters, self.best_metric = 0, -math.inf
        self.done, self.ended = 0, True  # iterations; whether the inner epoch that they end is validated
        self.window, self.inner_epoch = _Means(), _Means()
        self._stop = 0  # the signal that asked for it
        self._in_evaluation = False
        if is_main_process():
            handler = logging.FileHandler(self.folder / "console.log", encoding="utf-8")
            handler.setFormatter(logging.Formatter("%(asctime)s [%(levelname)s] %(message)s"))
            logging.getLogger().addHandler(handler)

    # Model and optimiser

    @property
    def model(self) -> nn.Module:
        """The model on its device, wrapped for several processes.

        Mends RunnerBase.model: with ``device: cpu`` the wrapped model stays None; DDP gets a CUDA device.
        """
        if self._wrapped_model is None:
            kind = self.config.run_cfg.get("parallel", "ddp")
            bf16 = self.precision.dtype if self.precision.dtype == torch.bfloat16 else None
            self._wrapped_model = wrap(self._model, kind, self.device, param_dtype=bf16)
        return self._wrapped_model

    def unwrap_dist_model(self, model: nn.Module) -> nn.Module:
        """The model itself.

        Mends RunnerBase.unwrap_dist_model: takes every model of several processes for DDP's.
        """
        return model.module if isinstance(model, DistributedDataParallel) else model

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """AdamW; no decay on biases, norms and other vectors; ``run.lrs`` gives parts a rate of their own.

        Mends RunnerBase.optimizer: beta1 is fixed, and all parts have one rate.
        """
        if self._optimizer is None:
            run = self.config.run_cfg
            model = self.unwrap_dist_model(self.model)
            groups = parameter_groups(model, float(run.init_lr), float(run.weight_decay), run.get("lrs"))
            self._optimizer = torch.optim.AdamW(
                groups,
                lr=float(run.init_lr),
                betas=(float(run.get("beta1", 0.9)), float(run.get("beta2", 0.999))),
                fused=True,
            )
            trained = sum(parameter.numel() for group in groups for parameter in group["params"])
            logging.info("Trained parameters: %s", f"{trained:,}")
        return self._optimizer

    # Data

    @property
    def dataloaders(self) -> dict[str, Iterable[Any]]:
        """One loader a split; the training's mixes all data sets that have one.

        Mends RunnerIter.dataloaders and RunnerBase.create_loaders: PrefetchLoader needs CUDA; a stream
        becomes an iterator that is empty the second time; ranks pad their part of an evaluation split with
        duplicates; train_dataset_ratios reads a name before its assignment, and each rank draws for itself;
        without it the first endless stream is the only one that is read.
        """
        if self._dataloaders is None:
            run = self.config.run_cfg
            train = {name: parts["train"] for name, parts in self.datasets.items() if "train" in parts}
            loaders: dict[str, Iterable[Any]] = {}
            if train:
                loaders["train"] = TrainingBatches(
                    {name: self._training_loader(part) for name, part in train.items()},
                    weights=run.get("train_dataset_ratios"),
                    seed=int(run.seed),
                    world_size=get_world_size(),
                )
            evaluated = self._evaluated()
            loaders |= {split: self._evaluation_loader(part) for split, part in evaluated.items()}
            self.datasets, self._dataloaders = {"train": train, **evaluated}, loaders
        return self._dataloaders

    @property
    def train_loader(self) -> TrainingBatches:
        """The training batches.

        Raises:
            UserError: no data set has a training split.
        """
        loader = self.dataloaders.get("train")
        if not isinstance(loader, TrainingBatches):
            raise UserError(
                "datasets: found no split 'train' in any of them; add a data set that has one (look at "
                "datasets.<name>.splits), or set run.evaluate: true"
            )
        return loader

    def _evaluated(self) -> dict[str, Dataset[Any]]:
        """The data set of each split but the training's."""
        found: dict[str, Dataset[Any]] = {}
        for split in sorted({split for parts in self.datasets.values() for split in parts} - {"train"}):
            names = [name for name, parts in self.datasets.items() if split in parts]
            if len(names) > 1 and split in (*self.valid_splits, *self.test_splits):
                raise UserError(
                    f"datasets: found {', '.join(names)} for {split!r}, one data set expected; leave the "
                    f"split out of the others by datasets.<name>.splits ({names[-1]}: splits: [train])"
                )
            found[split] = self.datasets[names[0]][split]
        return found

    def _training_loader(self, dataset: Dataset[Any]) -> DataLoader[Any]:
        run = self.config.run_cfg
        workers = int(run.num_workers)
        return DataLoader(
            dataset,
            batch_size=int(run.batch_size_train),
            num_workers=workers,
            pin_memory=self.cuda_enabled,
            persistent_workers=workers > 0,
            worker_init_fn=ready_for_signals,
        )

    def _evaluation_loader(self, dataset: Dataset[Any]) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            batch_size=int(self.config.run_cfg.batch_size_eval),
            num_workers=int(self.config.run_cfg.num_workers),
            pin_memory=self.cuda_enabled,
            collate_fn=getattr(dataset, "collater", None),
            sampler=RankSampler(dataset, get_rank(), get_world_size()),
        )

    # The run

    def train(self) -> None:
        """Train, validate after each inner epoch, test the best weights.

        Mends RunnerIter.train: barriers without a process group; the last inner epoch may be shorter; the
        test takes the last weights instead of the best; a metric of 0 never counts as best.

        Raises:
            SystemExit: 128 + the number of a signal of `STOPPING`; a checkpoint was saved.
        """
        start = time.time()
        with self._signals(), self._failures_in_the_log():
            self._resume()
            if not self.evaluate_only:
                with logging_redirect_tqdm(), self._bar() as bar:
                    self._train(bar)
                best = self.store.best() if self.best_iters else None
                if best:
                    logging.info("Testing the best weights, of iteration %d", best.iters)
                    self.best_iters = best.iters  # an earlier one may be broken
                    load_weights(best.weights, self.unwrap_dist_model(self.model))
            self.evaluate(cur_epoch=self.best_iters or self.max_iters, skip_reload=True)
            self._write_metrics()
        logging.info("The run took %.0f s; its files are in %s", time.time() - start, self.folder)

    def _train(self, bar: tqdm[None]) -> None:
        if self.config.run_cfg.get("validate_at_start") and not self.done:
            self._validate_all()
        every = self.iters_per_inner_epoch
        while self.done < self.max_iters or not self.ended:
            first = self.done if self.ended else self.done - 1  # an iteration of this inner epoch
            end = min((first // every + 1) * every, self.max_iters)
            if self.done < end:
                self._train_iters(end, bar)
            self.log_stats({"iters": end, **self.inner_epoch.means()}, "train")
            metric = self._validate_all()
            self.ended, self.inner_epoch = True, _Means()
            self._save_checkpoint(end, metric=metric)

    def _bar(self) -> tqdm[None]:
        return tqdm(
            total=self.max_iters,
            initial=self.done,
            desc="Training",
            unit="step",
            disable=not is_main_process(),
        )

    def _train_iters(self, end: int, bar: tqdm[None]) -> None:
        """Iterations to the end of the inner epoch.

        Replaces BaseTask._train_inner_loop: no clipping, accumulated gradients are summed, the meters need
        CUDA, only fp16 autocast.
        """
        batches, model = iter(self.train_loader), self.model.train()
        clip = float(self.config.run_cfg.get("clip_grad_norm") or 0)
        save_freq = self.config.run_cfg.get("save_freq")
        started, waited, tokens = time.time(), 0.0, 0.0

        def loss_of(batch: Any) -> dict[str, Any]:
            loss = self.task.train_step(model=model, samples=batch)
            return {**getattr(self.task, "losses", {}), "loss": loss}

        while self.done < end:
            epoch, step = divmod(self.done, self.iters_per_inner_epoch)
            self.lr_scheduler.step(cur_epoch=epoch, cur_step=step)
            self.optimizer.zero_grad(set_to_none=True)
            before = time.time()
            held = [
                apply_to_sample(lambda x: x.to(self.device, non_blocking=True), next(batches))
                for _ in range(self.accum_grad_iters)
            ]
            waited += time.time() - before
            result = accumulate(model, held, loss_of, self.precision, stop=bool(self._stop))
            losses = [
                {name: float(value) for name, value in output.items() if name != "weight"}
                for output in result.outputs
            ]
            if result.bad:
                self._refuse(held, losses)
            if self.precision.step(self.optimizer, model.parameters(), clip).skipped:
                logging.info("Iteration %d: gradients overflowed fp16, a smaller scale is tried", self.done)
            for values in losses:
                self.window.add(values)
                self.inner_epoch.add(values)
                tokens += values.get("tokens", 0.0)
            self.done += 1
            self.ended = False
            bar.update()
            if self.done % self.log_freq == 0 or self.done == end:
                means, taken = self.window.means(), time.time() - started
                self.window = _Means()
                self.log_stats({"iters": self.done, "lr": self._rate(), **means}, "step")
                bar.set_postfix_str(self._in_a_line(means, tokens / taken, waited / taken))
            if result.stop:
                self._stop_here()
            if save_freq and self.done % save_freq == 0 and self.done < end:
                self._save_checkpoint(self.done)

    def _refuse(self, batches: list[Any], losses: list[dict[str, float]]) -> None:
        """Some process's loss is not finite: all stop, and the samples are told."""
        bad = [
            {"loss": str(values["loss"]), "keys": sorted(set(batch.get("key", [])))}
            for batch, values in zip(batches, losses, strict=True)
            if not math.isfinite(values["loss"])
        ]
        found = [{"rank": rank, **row} for rank, rows in enumerate(all_gather_object(bad)) for row in rows]
        path = self.folder / "bad_batch.json"
        if is_main_process():
            text = json.dumps({"iteration": self.done, "batches": found}, indent=1)
            atomic_write(path, (text + "\n").encode())
        raise UserError(
            f"iteration {self.done}: the loss is {found[0]['loss']}; lower run.init_lr or look at the "
            f"samples {', '.join(found[0]['keys'][:5])} (all of the batch are in {path})"
        )

    def _rate(self) -> float:
        """The learning rate of parts without one of their own."""
        first = self.optimizer.param_groups[0]
        return first["lr"] / first.get("lr_scale", 1.0)

    def _in_a_line(self, means: dict[str, float], speed: float, waited: float) -> str:
        """Losses, speed, share of time that data were waited for, memory: behind the progress bar."""
        told = [f"{_short(name)} {value:.3f}" for name, value in means.items() if name != "tokens"]
        if speed:
            told.append(f"{speed:.0f} tokens/s")
        if self.cuda_enabled:
            memory = torch.cuda.max_memory_allocated(self.device) / 2**30
        else:
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        return ", ".join([*told, f"data wait {waited:.0%}", f"{memory:.1f} GiB"])

    # Evaluation

    @torch.no_grad()
    def eval_epoch(self, split_name: str, cur_epoch: Any, skip_reload: bool = False) -> dict[str, Any] | None:
        """Evaluate the weights that the model has.

        Mends RunnerBase.eval_epoch: takes every model of several processes for DDP's.
        """
        self._in_evaluation = True
        try:
            if self._stop:
                raise _Stopped(self._stop)
            loader = self.dataloaders[split_name]  # it sorts the data sets by split
            with unsharded(self.model) as model:
                model.eval()
                self.task.before_evaluation(model=model, dataset=self.datasets[split_name])
                results = self.task.evaluation(model, loader)
                return self.task.after_evaluation(val_result=results, split_name=split_name, epoch=cur_epoch)
        finally:
            self._in_evaluation = False

    def _validate_all(self) -> float | None:
        """Validate; the metric of the first split, None where there is none."""
        try:
            metrics = [self._validate(split) for split in self.valid_splits]
        except _Stopped:
            self._save_checkpoint(self.done)  # the validation is made up for when the run goes on
            raise
        return metrics[0] if metrics else None

    def _validate(self, split: str) -> float:
        log = self.eval_epoch(split_name=split, cur_epoch=self.done)
        metric = all_gather_object(log and log["agg_metrics"])[0]
        better = self.done and (metric > self.best_metric or not self.best_iters)
        if split == self.valid_splits[0] and better:
            self.best_iters, self.best_metric = self.done, metric
        if log is not None:
            logging.info(
                "Validation on %r after %d steps: agg_metrics %.4f (best: %d)",
                *(split, self.done, metric, self.best_iters),
            )
            self.log_stats({"iters": self.done, **log, "best_iters": self.best_iters}, split)
        return metric

    # Interruptions

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Inside, a signal of `STOPPING` ends the run after a checkpoint; a second one at once."""

        def stop(number: int, _: Any) -> None:
            if self._stop or self._in_evaluation:
                raise _Stopped(number)
            self._stop = number

        try:
            before = {number: signal.signal(number, stop) for number in STOPPING}
        except ValueError:  # not in the main thread, as in a notebook's
            yield
            return
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def _failures_in_the_log(self) -> Iterator[None]:
        """What ends the run stands in console.log too, whichever process it is in."""
        try:
            yield
        except Exception as error:
            told = str(error) if isinstance(error, UserError) else traceback.format_exc()
            with suppress(OSError), open(self.folder / "console.log", "a", encoding="utf-8") as file:
                file.write(f"{datetime.now()} [ERROR] rank {get_rank()}: {told}\n")
            raise
        finally:
            with suppress(OSError):
                Path(self.result_dir).rmdir()  # LAVIS makes it for tasks that save_result

    def _stop_here(self) -> None:
        """All processes agree that one of them was asked to stop."""
        self._save_checkpoint(self.done)
        number = self._stop or signal.SIGTERM
        logging.warning(
            "Stopped by %s after %d steps; the checkpoint is in %s. With run.resume: auto the same command "
            "goes on; else name the checkpoint by run.resume_ckpt_path",
            *(signal.Signals(number).name, self.done, self.store.folder),
        )
        raise _Stopped(number)

    def _resume(self) -> None:
        """Weights, and for a training run the optimiser and the place to go on from.

        Mends RunnerIter._load_checkpoint: unpickles, and resumes one iteration late.
        """
        path = self.resume_ckpt_path
        if self.evaluate_only:
            if path:
                load_weights(weights_of(path), self.unwrap_dist_model(self.model))
            return
        auto = self.config.run_cfg.get("resume") == "auto"
        checkpoint = self.store.newest() if auto else None
        if checkpoint is None and path:
            checkpoint = find(path)
        if checkpoint is not None:
            self._load_checkpoint(checkpoint)
        elif auto and any(self.store.folder.glob("iter_*")):
            logging.warning("%s: no whole checkpoint in it, the run begins anew", self.store.folder)
        elif auto:
            logging.info("run.resume: auto: no checkpoint of this config was found, the run begins anew")
        self._cut_log()

    def _load_checkpoint(self, checkpoint: Checkpoint) -> None:
        for told in check_config(checkpoint, self._config()):
            if is_main_process():
                logging.warning("%s", told)
        model = self.unwrap_dist_model(self.model)
        values, ranks = self.store.load(checkpoint, model, self.optimizer)
        if "stream" not in ranks[0]:
            raise UserError(
                f"{checkpoint.folder}: the place of the training data is missing in it; start anew from its "
                f"weights by model.load_finetuned: true and model.finetuned: {checkpoint.weights}"
            )
        self.train_loader.resume([row["stream"] for row in ranks], get_rank())
        if len(ranks) == get_world_size():
            unpack_rng(ranks[get_rank()]["rng"])
        self.precision.load_state_dict(values["scaler"])
        self.ended = values["ended"]
        here = checkpoint.folder.parent.resolve() == self.store.folder.resolve()
        if here and values["best_metric"] is not None:
            # Another run's best checkpoint is not in this folder.
            self.best_iters, self.best_metric = values["best_iters"], values["best_metric"]
        self.window.sums.update(values["window"])
        self.inner_epoch.sums.update(values["inner_epoch"])
        self.done = self.start_iters = checkpoint.iters
        logging.info("Going on after iteration %d, with %s", self.done, checkpoint.folder)

    @main_process
    def _cut_log(self) -> None:
        """What a killed run logged after its last checkpoint is logged once more."""
        path = self.folder / "log.txt"
        if path.exists():
            *lines, _ = path.read_text(encoding="utf-8").split("\n")
            told = [line for line in map(json.loads, lines) if self.done and line["iters"] <= self.done]
            if not self.ended:  # the end of the inner epoch is still to come
                told = [line for line in told if line["split"] == "step" or line["iters"] < self.done]
            self.history = told
            atomic_write(path, "".join(json.dumps(line) + "\n" for line in told).encode())

    # Files

    def _save_checkpoint(self, cur_iters: int, is_best: bool = False, *, metric: float | None = None) -> None:
        """What a resumed run needs; to be called by all processes.

        Mends RunnerIter._save_checkpoint: written in place and pickled; the data begin anew.
        """
        self.store.save(
            self.unwrap_dist_model(self.model),
            self.optimizer,
            iters=cur_iters,
            metric=metric,
            values={
                "best_iters": self.best_iters,
                "best_metric": self.best_metric if self.best_iters else None,
                "ended": self.ended,
                "scaler": self.precision.state_dict(),
                "window": self.window.sums,
                "inner_epoch": self.inner_epoch.sums,
            },
            per_rank={"rng": pack_rng(), "stream": self.train_loader.state()},
            manifest={
                "config": self._config(),
                "data": self.train_loader.identity_hash(),
                "revision": code_revision(),
            },
            sharded=self.config.run_cfg.get("parallel") == "fsdp" and get_world_size() > 1,
        )

    def _config(self) -> dict[str, Any]:
        config = getattr(self.config, "config", self.config)
        plain = OmegaConf.to_container(config, resolve=True)
        assert isinstance(plain, dict)
        return {key: plain[key] for key in ("model", "datasets", "run") if key in plain}

    @main_process
    def log_config(self) -> None:
        """Nothing: config.yaml holds it, and log.txt stays one JSON object a line."""

    @main_process
    def log_stats(self, stats: Any, split_name: str) -> None:
        """Append a line to log.txt and keep it for metrics.json."""
        if not isinstance(stats, dict):
            return
        line = {"split": split_name, **stats}
        self.history.append(line)
        path = self.folder / "log.txt"
        try:
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise UserError(f"{path}: it cannot be written ({error.strerror}); make room there") from None

    @main_process
    def _write_metrics(self) -> None:
        report = {
            "best_iters": self.best_iters,
            "test": getattr(self.task, "report", {}),
            "train": [line for line in self.history if line["split"] == "train"],
            "validation": [line for line in self.history if line["split"] in self.valid_splits],
        }
        atomic_write(self.folder / "metrics.json", (json.dumps(report, indent=1) + "\n").encode())


class _Stopped(SystemExit):
    """The exit code that shells and schedulers know for a process that a signal ended."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


def ready_for_signals(_: int) -> None:
    """In a data worker: a scheduler's signals go to all processes, and the last steps need data."""
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE))


class RankSampler(Sampler[int]):
    """Every ``world_size``-th sample from ``rank`` on: together the ranks see each sample exactly once."""

    def __init__(self, dataset: Dataset[Any], rank: int, world_size: int) -> None:
        self.indexes = range(rank, len(dataset), world_size)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indexes)

    def __len__(self) -> int:
        return len(self.indexes)


def _short(name: str) -> str:
    return name.removeprefix("loss_")


class _Means:
    """Means of named scalars; ``sums`` holds of each the sum and how many."""

    def __init__(self) -> None:
        self.sums: dict[str, list[float]] = {}

    def add(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = [total + value, count + 1]

    def means(self) -> dict[str, float]:
        return {name: total / count for name, (total, count) in self.sums.items()}
