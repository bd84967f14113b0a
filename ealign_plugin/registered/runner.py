"""The runner ``ealign_runner``: LAVIS's RunnerIter, mended, on CPUs or GPUs, one process or many.

It builds the parts of `ealign_plugin.training` from a config and lets them work. What is mended, and where
LAVIS 1.0.2 has the defect, stands at each override. What a run leaves in its folder::

    config.yaml   environment.json   console.log   log.txt (one JSON object a line)   metrics.json
    checkpoints/last, best → iter_000400/…       (see `ealign_plugin.training.checkpoints`)
    selections-<data set>-<step>.jsonl           (the newest, where run.own_selections_from asks for it)
    predictions.jsonl   report.txt               (written by the task)
    bad_batch.json                               (of a run that stopped because a loss was not finite)

With ``run.resume: auto`` a run that was interrupted, even by ``kill -9``, goes on by the same command and
logs what it would have logged.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lavis.common.dist_utils import main_process
from lavis.runners.runner_iter import RunnerIter
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ealign_plugin.alignment.selection import Selection
from ealign_plugin.data.streams.batches import TrainingBatches
from ealign_plugin.distributed import rank, world_size
from ealign_plugin.errors import UserError
from ealign_plugin.host.environment import code_revision
from ealign_plugin.host.registration import registered
from ealign_plugin.news import NewsSample
from ealign_plugin.training.checkpoints.manifest import FOLDER, Checkpoint
from ealign_plugin.training.checkpoints.store import CheckpointStore, find_weights
from ealign_plugin.training.checkpoints.tensors import load_weights
from ealign_plugin.training.loaders import (
    count_tokens_of_contexts,
    evaluation_datasets,
    evaluation_loader,
    training_loader,
)
from ealign_plugin.training.loop import TrainingLoop
from ealign_plugin.training.metric_log import MetricLog
from ealign_plugin.training.optimizer import build_optimizer
from ealign_plugin.training.options import TrainingOptions
from ealign_plugin.training.own_selections import Photos, SelectionRefresh, selection_files
from ealign_plugin.training.precision import Precision
from ealign_plugin.training.resume import RunCheckpoints
from ealign_plugin.training.run_state import RunState
from ealign_plugin.training.sharding import unsharded, wrap
from ealign_plugin.training.signals import StopSignals
from ealign_plugin.validation import option_defaults, option_help, option_ranges


@registered("runner", "ealign_runner")
class EalignRunner(RunnerIter):
    """RunnerIter for streams, one process or many, with checkpoints that are whole or absent.

    Attributes:
        folder: The run's.
        options: What ``run`` says about the training.
        state: How far the run is.
        store: Its checkpoints.
        log: Its ``log.txt`` and ``metrics.json``.
        signals: Whether it was asked to stop.
        precision: Of its forward passes.
    """

    RESUMES_IN_FOLDER = True  # of an interrupted run; see `ealign_plugin.host.run_folder`
    RUN_DEFAULTS = option_defaults(TrainingOptions)
    RUN_KEYS = option_help(TrainingOptions)
    RUN_RANGES = option_ranges(TrainingOptions)

    # Declared by RunnerBase without types.
    datasets: dict[str, Any]
    _model: nn.Module
    _wrapped_model: nn.Module | None
    _optimizer: torch.optim.Optimizer | None
    _dataloaders: dict[str, Iterable[Any]] | None

    def __init__(self, cfg: Any, task: Any, model: nn.Module, datasets: dict[str, Any], job_id: str) -> None:
        super().__init__(cfg, task, model, datasets, job_id)
        self.folder = Path(self.output_dir)
        self.options = TrainingOptions.from_run(cfg.run_cfg)
        self.store = CheckpointStore(
            self.folder / FOLDER, int(self.options.keep_last), int(self.options.keep_best)
        )
        self.precision = Precision(self.options.amp, self.device)
        self.state, self.log, self.signals = RunState(), MetricLog(self.folder), StopSignals()
        if rank() == 0:
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
            bf16 = self.precision.dtype if self.precision.dtype == torch.bfloat16 else None
            self._wrapped_model = wrap(self._model, self.options.parallel, self.device, param_dtype=bf16)
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
            self._optimizer = build_optimizer(
                self.unwrap_dist_model(self.model),
                lr=float(run.init_lr),
                weight_decay=float(run.weight_decay),
                betas=(float(self.options.beta1), float(self.options.beta2)),
                lrs=self.options.lrs,
            )
            groups = self._optimizer.param_groups
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
            train = {name: splits["train"] for name, splits in self.datasets.items() if "train" in splits}
            evaluated = evaluation_datasets(self.datasets, (*self.valid_splits, *self.test_splits))
            loaders: dict[str, Iterable[Any]] = {"train": self._training_batches(train)} if train else {}
            run = self.config.run_cfg
            for split, dataset in evaluated.items():
                loaders[split] = evaluation_loader(
                    dataset,
                    batch_size=int(run.batch_size_eval),
                    workers=int(run.num_workers),
                    rank=rank(),
                    world_size=world_size(),
                    pin_memory=self.cuda_enabled,
                )
            self.datasets, self._dataloaders = {"train": train, **evaluated}, loaders
        return self._dataloaders

    def _training_batches(self, streams: Mapping[str, Any]) -> TrainingBatches:
        run = self.config.run_cfg
        if run.get("context_tokens") and not self.evaluate_only:
            count_tokens_of_contexts(streams, getattr(self._model, "count_tokens", None))
        loaders = {
            name: training_loader(
                stream,
                batch_size=int(run.batch_size_train),
                workers=int(run.num_workers),
                pin_memory=self.cuda_enabled,
            )
            for name, stream in streams.items()
        }
        weights = run.get("train_dataset_ratios")
        return TrainingBatches(loaders, weights=weights, seed=int(run.seed), world_size=world_size())

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

    # The run

    def train(self) -> None:
        """Train, validate after each inner epoch, test the best weights.

        Mends RunnerIter.train: barriers without a process group; the last inner epoch may be shorter; the
        test takes the last weights instead of the best; a metric of 0 never counts as best.

        Raises:
            SystemExit: 128 + the number of a signal of `STOPPING`; a checkpoint was saved.
        """
        start = time.time()
        with self.signals.listening(), self._failures_in_the_log():
            tested = self.evaluate_only and self.resume_ckpt_path
            weights = find_weights(tested) if tested else None
            self._log_doubts(weights)
            if not self.evaluate_only:
                best = self._train()
                files = self._prepare_test(best.folder if best else None)
                if best and files:
                    self.store.replace_files(best, files)
            else:
                if weights:
                    load_weights(weights, self.unwrap_dist_model(self.model))
                self._prepare_test(weights.parent if weights else None)
            self.evaluate(cur_epoch=self.state.best_iters or self.max_iters, skip_reload=True)
            self.log.write_metrics(
                best_iters=self.state.best_iters,
                test=getattr(self.task, "report", {}),
                valid_splits=self.valid_splits,
            )
        logging.info("The run took %.0f s; its files are in %s", time.time() - start, self.folder)

    def _log_doubts(self, weights: Path | None) -> None:
        """What the task doubts about the config, before the long work.

        Args:
            weights: Those that are only tested; None: the run trains, or tests what a config alone describes.
        """
        doubts = getattr(self.task, "doubts", None)
        if doubts and rank() == 0 and (weights or not self.evaluate_only):
            for doubt in doubts(weights):
                logging.warning("%s", doubt)

    def _train(self) -> Checkpoint | None:
        """Train; the checkpoint whose weights the model then has, None where none was the best."""
        loop = self.training_loop()
        auto = self.options.resume == "auto"
        checkpoint = loop.checkpoints.find(self.resume_ckpt_path, newest_of_run=auto)
        if checkpoint is not None:
            loop.checkpoints.restore(checkpoint)
            self.refresh.restore(checkpoint.folder)
        self.start_iters = self.state.iters
        self.log.cut(self.state.iters, self.state.ended)
        loop.run()
        best = self.store.best() if self.state.best_iters else None
        if best:
            logging.info("Testing the best weights, of iteration %d", best.iters)
            self.state.best_iters = best.iters  # an earlier one may be broken
            load_weights(best.weights, self.unwrap_dist_model(self.model))
        return best

    def _prepare_test(self, folder: Path | None) -> Mapping[str, bytes]:
        """Let the task settle what it leaves open until weights are tested.

        Args:
            folder: Of the checkpoint that they come from.

        Returns:
            Files that the checkpoint is to hold.
        """
        prepare = getattr(self.task, "prepare_test", None)
        if prepare is None:
            return {}
        loaders, split = self.dataloaders, next(iter(self.valid_splits), "")
        validation = (self.datasets[split], loaders[split]) if split in loaders else None
        with self.signals.interrupting(), unsharded(self.model) as model:
            model.eval()
            return prepare(model, folder, validation)

    def training_loop(self) -> TrainingLoop:
        """The loop over this runner's parts.

        Replaces BaseTask._train_inner_loop: no clipping, accumulated gradients are summed, the meters need
        CUDA, only fp16 autocast; and RunnerIter's checkpoints: pickled and written in place, the data begin
        anew, a run is resumed one iteration late.
        """
        return TrainingLoop(
            model=self.model,
            optimizer=self.optimizer,
            schedule=self.lr_scheduler,
            batches=self.train_loader,
            loss_of=self._losses,
            validate=lambda split: self.eval_epoch(split_name=split, cur_epoch=self.state.iters),
            valid_splits=self.valid_splits,
            checkpoints=self._checkpoints(),
            precision=self.precision,
            state=self.state,
            log=self.log,
            signals=self.signals,
            options=self.options,
            max_iters=self.max_iters,
            iters_per_inner_epoch=self.iters_per_inner_epoch,
            device=self.device,
            folder=self.folder,
            after_step=self.refresh.after_step,
        )

    @cached_property
    def refresh(self) -> SelectionRefresh:
        """Writes the model's own selections as it learns, where ``run.own_selections_from`` asks for it."""
        files = selection_files(self.train_loader.loaders, self.options, self.folder)
        select = self._select if hasattr(self.task, "select") else None
        return SelectionRefresh(self.train_loader, files, select, int(self.config.run_cfg.batch_size_eval))

    def _select(self, name: str, photos: Photos) -> list[tuple[NewsSample, Selection]]:
        wording = self.datasets["train"][name].mixer.wording
        with unsharded(self.model) as model:
            found = self.task.select(model.eval(), wording, photos)
        self.model.train()
        return found

    def _losses(self, model: nn.Module, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The task's loss, and the other scalars that it keeps of the step."""
        loss = self.task.train_step(model=model, samples=batch)
        return {**getattr(self.task, "losses", {}), "loss": loss}

    def _checkpoints(self) -> RunCheckpoints:
        return RunCheckpoints(
            store=self.store,
            model=self.unwrap_dist_model(self.model),
            optimizer=self.optimizer,
            batches=self.train_loader,
            precision=self.precision,
            state=self.state,
            config=self._config(),
            revision=code_revision(),
            sharded=self.options.parallel == "fsdp" and world_size() > 1,
            files=lambda: {**getattr(self.task, "checkpoint_files", dict)(), **self.refresh.still_read()},
        )

    def _config(self) -> dict[str, Any]:
        config = getattr(self.config, "config", self.config)
        plain = OmegaConf.to_container(config, resolve=True)
        assert isinstance(plain, dict)
        return {key: plain[key] for key in ("model", "datasets", "run") if key in plain}

    # Evaluation

    @torch.no_grad()
    def eval_epoch(self, split_name: str, cur_epoch: Any, skip_reload: bool = False) -> dict[str, Any] | None:
        """Evaluate the weights that the model has.

        Mends RunnerBase.eval_epoch: takes every model of several processes for DDP's. `skip_reload` is true
        of a test and false of a validation, also where both have one split.
        """
        with self.signals.interrupting():
            loader = self.dataloaders[split_name]  # it sorts the data sets by split
            with unsharded(self.model) as model:
                model.eval()
                dataset, validates = self.datasets[split_name], not skip_reload
                self.task.before_evaluation(model=model, dataset=dataset, validates=validates)
                results = self.task.evaluation(model, loader)
                return self.task.after_evaluation(val_result=results, split_name=split_name, epoch=cur_epoch)

    # Files

    @contextmanager
    def _failures_in_the_log(self) -> Iterator[None]:
        """What ends the run stands in console.log too, whichever process it is in."""
        try:
            yield
        except Exception as error:
            text = str(error) if isinstance(error, UserError) else traceback.format_exc()
            with suppress(OSError), open(self.folder / "console.log", "a", encoding="utf-8") as file:
                file.write(f"{datetime.now()} [ERROR] rank {rank()}: {text}\n")
            raise
        finally:
            with suppress(OSError):
                Path(self.result_dir).rmdir()  # LAVIS makes it for tasks that save_result

    @main_process
    def log_config(self) -> None:
        """Nothing: config.yaml holds it, and log.txt stays one JSON object a line.

        Mends RunnerBase.log_config: writes the config over many lines into log.txt.
        """

    def log_stats(self, stats: Any, split_name: str) -> None:
        """Append a line to log.txt and keep it for metrics.json.

        Mends RunnerBase.log_stats: keys get the split's name before them.
        """
        if isinstance(stats, dict):
            self.log.add(split_name, stats)
