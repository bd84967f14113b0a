"""The runner ``ealign_runner``: LAVIS's RunnerIter, mended, on a CPU or a GPU.

What is mended, and where LAVIS 1.0.2 has the defect, stands at each override. What a run leaves in its
folder::

    config.yaml   console.log   log.txt (one JSON object a line)   metrics.json
    checkpoint_last.safetensors + .state.pt      checkpoint_best.safetensors
    predictions.jsonl   report.txt               (written by the task)
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from lavis.common.dist_utils import get_rank, get_world_size, is_main_process, main_process
from lavis.datasets.data_utils import apply_to_sample
from lavis.runners.runner_iter import RunnerIter
from safetensors.torch import save_file
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from ealign_plugin.errors import UserError
from ealign_plugin.host.distributed import gathered
from ealign_plugin.host.registration import registered
from ealign_plugin.models.parts import parameter_groups
from ealign_plugin.shards.batches import TrainingBatches
from ealign_plugin.shards.write import whole, write_whole


@registered("runner", "ealign_runner")
class EalignRunner(RunnerIter):
    """RunnerIter for streams, one process or many, with checkpoints that are whole or absent."""

    GOES_ON = True  # in the folder of an interrupted run (see `ealign_plugin.host.run_folder`)
    RUN_DEFAULTS = {
        "beta1": 0.9,
        "clip_grad_norm": 1.0,
        "log_freq": 50,
        "lr_sched": "ealign_cosine",
        "lrs": {},
        "validate_at_start": False,
    }
    RUN_KEYS = {
        "beta1": "AdamW's first beta (LAVIS reads only beta2)",
        "validate_at_start": "validate before the first step too",
        "lrs": "learning rates of parts that have one of their own: {llm: 1.0e-5}",
        "clip_grad_norm": "largest norm of the gradients; 0 turns clipping off",
    }

    # Declared by RunnerBase without types.
    datasets: dict[str, Any]
    _model: nn.Module
    _wrapped_model: nn.Module | None
    _optimizer: torch.optim.Optimizer | None
    _dataloaders: dict[str, Iterable[Any]] | None

    def __init__(self, cfg: Any, task: Any, model: nn.Module, datasets: dict[str, Any], job_id: str) -> None:
        super().__init__(cfg, task, model, datasets, job_id)
        self.history: list[dict[str, Any]] = []
        self.best_iters, self.best_metric = 0, -math.inf
        if is_main_process():
            handler = logging.FileHandler(Path(self.output_dir) / "console.log", encoding="utf-8")
            handler.setFormatter(logging.Formatter("%(asctime)s [%(levelname)s] %(message)s"))
            logging.getLogger().addHandler(handler)

    # Model and optimiser

    @property
    def model(self) -> nn.Module:
        """The model on its device, wrapped for several processes.

        Mends RunnerBase.model: with ``device: cpu`` the wrapped model stays None; DDP gets a CUDA device.
        """
        if self._wrapped_model is None:
            self._model = self._model.to(self.device)
            self._wrapped_model = self._model
            if self.use_distributed:
                devices = [self.config.run_cfg.gpu] if self.cuda_enabled else None
                self._wrapped_model = DistributedDataParallel(self._model, device_ids=devices)
        return self._wrapped_model

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
        """
        start = time.time()
        if self.resume_ckpt_path:
            self._load_checkpoint(self.resume_ckpt_path)
        if not self.evaluate_only:
            with logging_redirect_tqdm(), self._bar() as bar:
                if self.config.run_cfg.get("validate_at_start") and not self.start_iters:
                    for split in self.valid_splits:
                        self._validate(split, 0)
                for first in range(self.start_iters, self.max_iters, self.iters_per_inner_epoch):
                    stats = self._train_iters(first, bar)
                    self.log_stats(stats, "train")
                    end = int(stats["iters"])
                    for split in self.valid_splits:
                        self._validate(split, end)
                    self._save_checkpoint(end)
            if self.best_iters:
                logging.info("Testing the best weights, of iteration %d", self.best_iters)
                self._load_weights(Path(self.output_dir) / "checkpoint_best.safetensors")
        self.evaluate(cur_epoch=self.best_iters or self.max_iters, skip_reload=True)
        self._write_metrics()
        logging.info("The run took %.0f s; its files are in %s", time.time() - start, self.output_dir)

    def _bar(self) -> tqdm[None]:
        return tqdm(
            total=self.max_iters,
            initial=self.start_iters,
            desc="Training",
            unit="step",
            disable=not is_main_process(),
        )

    def _train_iters(self, first: int, bar: tqdm[None]) -> dict[str, Any]:
        """Iterations ``first`` to the end of the inner epoch; returns the means of the losses.

        Replaces BaseTask._train_inner_loop: no clipping, accumulated gradients are summed, the meters need
        CUDA, only fp16 autocast.
        """
        end = min(first + self.iters_per_inner_epoch, self.max_iters)
        batches = iter(self.train_loader)
        clip = float(self.config.run_cfg.get("clip_grad_norm") or 0)
        model = self.model.train()
        window, inner_epoch = _Means(), _Means()
        started, tokens = time.time(), 0.0
        for iteration in range(first, end):
            self.lr_scheduler.step(
                cur_epoch=iteration // self.iters_per_inner_epoch,
                cur_step=iteration % self.iters_per_inner_epoch,
            )
            self.optimizer.zero_grad(set_to_none=True)
            for _ in range(self.accum_grad_iters):
                batch = apply_to_sample(lambda x: x.to(self.device, non_blocking=True), next(batches))
                with torch.autocast(
                    self.device.type, torch.bfloat16, enabled=bool(self.config.run_cfg.get("amp"))
                ):
                    loss = self.task.train_step(model=model, samples=batch)
                (loss / self.accum_grad_iters).backward()
                parts = {"loss": loss.detach(), **getattr(self.task, "losses", {})}
                losses = {name: float(value) for name, value in parts.items()}
                if not math.isfinite(losses["loss"]):
                    raise UserError(
                        f"iteration {iteration}: the loss is {losses['loss']}; "
                        f"lower run.init_lr or look at the samples {', '.join(batch.get('key', [])[:5])}"
                    )
                window.add(losses)
                inner_epoch.add(losses)
                tokens += losses.get("tokens", 0.0)
            if clip:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            self.optimizer.step()
            bar.update()
            if (iteration + 1) % self.log_freq == 0 or iteration + 1 == end:
                means = window.take()
                self.log_stats({"iters": iteration + 1, "lr": self._rate(), **means}, "step")
                speed = f", {tokens / (time.time() - started):.0f} tokens/s" if tokens else ""
                bar.set_postfix_str(
                    ", ".join(f"{_short(k)} {v:.3f}" for k, v in means.items() if k != "tokens") + speed
                )
        return {"iters": end, **inner_epoch.take()}

    def _rate(self) -> float:
        """The learning rate of parts without one of their own."""
        first = self.optimizer.param_groups[0]
        return first["lr"] / first.get("lr_scale", 1.0)

    def _validate(self, split: str, iters: int) -> None:
        log = self.eval_epoch(split_name=split, cur_epoch=iters, skip_reload=True)
        if log is None:
            return
        metric = log["agg_metrics"]
        if iters and split == self.valid_splits[0] and (metric > self.best_metric or not self.best_iters):
            self.best_iters, self.best_metric = iters, metric
            self._save_weights(Path(self.output_dir) / "checkpoint_best.safetensors")
        logging.info(
            "Validation on %r after %d steps: agg_metrics %.4f (best: %d)",
            split,
            iters,
            metric,
            self.best_iters,
        )
        self.log_stats({"iters": iters, **log, "best_iters": self.best_iters}, split)

    # Files

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
        with open(Path(self.output_dir) / "log.txt", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    @main_process
    def _write_metrics(self) -> None:
        report = {
            "best_iters": self.best_iters,
            "test": getattr(self.task, "report", {}),
            "train": [line for line in self.history if line["split"] == "train"],
            "validation": [line for line in self.history if line["split"] in self.valid_splits],
        }
        write_whole(Path(self.output_dir) / "metrics.json", (json.dumps(report, indent=1) + "\n").encode())
        result = Path(self.output_dir) / "result"
        if result.is_dir() and not any(result.iterdir()):
            result.rmdir()  # LAVIS makes it for tasks that save_result

    @main_process
    def _save_weights(self, path: Path) -> None:
        model = self.unwrap_dist_model(self.model)
        weights = model.trainable_state() if hasattr(model, "trainable_state") else model.state_dict()
        with whole(path) as part:
            tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
            save_file(tensors, part, metadata=getattr(model, "recipe", None))

    def _save_checkpoint(self, cur_iters: int, is_best: bool = False) -> None:
        """Weights, then what a resumed run needs beside them; to be called by all processes.

        Mends RunnerIter._save_checkpoint: written in place and pickled; the data begin anew.
        """
        streams = gathered(self.train_loader.state())
        if is_main_process():
            self._write_checkpoint(cur_iters, streams)

    def _write_checkpoint(self, cur_iters: int, streams: list[str]) -> None:
        path = Path(self.output_dir) / "checkpoint_last.safetensors"
        self._save_weights(path)
        state = {
            "iters": cur_iters,
            "best_iters": self.best_iters,
            "best_metric": self.best_metric,
            "optimizer": self.optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            "streams": streams,
        }
        with whole(_state_path(path)) as part:
            torch.save(state, part)

    def _load_weights(self, path: Path) -> None:
        self.unwrap_dist_model(self.model).load_checkpoint(path)

    def _load_checkpoint(self, url_or_filename: str) -> None:
        """Weights, and for a training run the optimiser and the place to go on from.

        Mends RunnerIter._load_checkpoint: unpickles, and resumes one iteration late.
        """
        path = Path(url_or_filename)
        self._load_weights(path)
        if self.evaluate_only:
            return
        state_path = _state_path(path)
        if not state_path.is_file():
            raise UserError(
                f"{state_path}: no such file; resume from checkpoint_last.safetensors, which has it beside "
                "it, or start from weights alone by model.load_finetuned and model.finetuned"
            )
        try:
            state = torch.load(state_path, map_location=self.device, weights_only=True)
        except Exception as error:  # torch raises whatever its unpickler meets
            raise UserError(
                f"{state_path}: it cannot be read ({type(error).__name__}); use another checkpoint"
            ) from None
        if "streams" not in state:
            raise UserError(
                f"{state_path}: the place of the training data (streams) is missing, an older ealign-plugin "
                "wrote it; start anew from the weights by model.load_finetuned and model.finetuned"
            )
        streams = state["streams"]
        self.train_loader.resume(streams[min(get_rank(), len(streams) - 1)])  # it checks the processes too
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"].cpu())
        self.start_iters = int(state["iters"])
        logging.info("Resuming %s at iteration %d", path, self.start_iters)


class RankSampler(Sampler[int]):
    """Every ``world_size``-th sample from ``rank`` on: together the ranks see each sample exactly once."""

    def __init__(self, dataset: Dataset[Any], rank: int, world_size: int) -> None:
        self.indexes = range(rank, len(dataset), world_size)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indexes)

    def __len__(self) -> int:
        return len(self.indexes)


class _Means:
    """Means of named scalars."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = defaultdict(list)

    def add(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.values[name].append(value)

    def take(self) -> dict[str, float]:
        means = {name: sum(values) / len(values) for name, values in self.values.items()}
        self.values.clear()
        return means


def _state_path(path: Path) -> Path:
    return path.with_suffix(".state.pt")


def _short(name: str) -> str:
    return name.removeprefix("loss_")
