"""The keys that LAVIS 1.0.2 reads from ``run``, their types, defaults and ranges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ealign_plugin.host.registration import registered_class
from ealign_plugin.validation import Choice, Number, Range

# What LAVIS 1.0.2 reads from `run`: runners, common/config.py and the stock tasks.
LAVIS_RUN_KEYS: dict[str, type] = {
    "runner": str,
    "task": str,
    "lr_sched": str,
    "init_lr": float,
    "min_lr": float,
    "warmup_lr": float,
    "warmup_steps": int,
    "lr_decay_rate": float,
    "weight_decay": float,
    "beta2": float,
    "max_epoch": int,
    "max_iters": int,
    "iters_per_inner_epoch": int,
    "accum_grad_iters": int,
    "batch_size_train": int,
    "batch_size_eval": int,
    "num_workers": int,
    "seed": int,
    "amp": bool,
    "log_freq": int,
    "output_dir": str,
    "evaluate": bool,
    "resume_ckpt_path": str,
    "train_splits": list,
    "valid_splits": list,
    "test_splits": list,
    "train_dataset_ratios": dict,
    "use_dist_eval_sampler": bool,
    "device": str,
    "world_size": int,
    "dist_url": str,
    "distributed": bool,
    "max_len": int,
    "min_len": int,
    "num_beams": int,
    "num_ans_candidates": int,
    "inference_method": str,
    "prompt": str,
    "report_metric": bool,
}


HOST_RUN_KEYS: dict[str, type] = {"plugins": list, "dist_timeout_minutes": float}


# What LAVIS reads without a default of its own and a user need not care about.
RUN_DEFAULTS: dict[str, Any] = {
    "runner": "runner_base",
    "device": "auto",
    "world_size": 1,
    "dist_url": "env://",
    "distributed": False,
    "dist_timeout_minutes": 30.0,
    "evaluate": False,
    "seed": 42,
    "num_workers": 0,
    "output_dir": "output",
    "resume_ckpt_path": None,
    "train_splits": ["train"],
    "valid_splits": [],
    "test_splits": [],
    "weight_decay": 0.05,
    "min_lr": 0.0,
    "lr_sched": "linear_warmup_cosine_lr",
}


def _numbers(*keys: str, least: float, most: float | None = None) -> dict[str, Range]:
    return {key: Number(least=least, most=most, whole=LAVIS_RUN_KEYS.get(key) is int) for key in keys}


RUN_RANGES: dict[str, Range] = {
    **_numbers("max_iters", "max_epoch", "iters_per_inner_epoch", "accum_grad_iters", "log_freq", least=1),
    **_numbers("batch_size_train", "batch_size_eval", least=1, most=1_000_000),
    **_numbers("num_workers", least=0, most=1_000),
    **_numbers("warmup_steps", "init_lr", "min_lr", "weight_decay", least=0),
    "seed": Number(least=0, most=2**32 - 1, whole=True),  # NumPy's are
    "device": Choice(("auto", "cpu", "cuda")),
}
"""What the keys of LAVIS may be, where their type does not say all."""


RUN_HELP = {
    "runner": "registered runner that trains and tests",
    "task": "registered task: how data become batches and answers become figures",
    "lr_sched": "registered learning-rate schedule",
    "init_lr": "learning rate after the warm-up",
    "min_lr": "learning rate at the end",
    "warmup_lr": "learning rate of the first step; below 0: init_lr / warmup_steps",
    "warmup_steps": "steps in which the learning rate rises",
    "lr_decay_rate": "factor of LAVIS's step schedule",
    "weight_decay": "AdamW's decay of matrices",
    "beta2": "AdamW's second beta",
    "max_epoch": "epochs; of runners that count epochs",
    "max_iters": "steps; of runners that count steps",
    "iters_per_inner_epoch": "steps between validations",
    "accum_grad_iters": "batches whose gradients are averaged for one step",
    "batch_size_train": "examples of a batch in each process",
    "batch_size_eval": "photos of a batch in validation and test",
    "num_workers": "processes that load data; 0: none beside the run's own",
    "seed": "of weights that are drawn, data order and dropout",
    "amp": "mixed precision of the forward pass",
    "log_freq": "steps between lines of the log",
    "output_dir": "where run folders are made; a relative path starts at the working directory",
    "evaluate": "test only",
    "resume_ckpt_path": "checkpoint to go on from, or whose weights are tested",
    "train_splits": "splits that are trained on",
    "valid_splits": "splits that are validated on",
    "test_splits": "splits that are tested",
    "train_dataset_ratios": "share of each data set in the batches: {ealign_goodnews: 2, ealign_news: 1}",
    "device": "auto: cuda where there is one, else cpu",
    "max_len": "most new tokens of an answer",
    "min_len": "fewest new tokens of an answer",
    "num_beams": "width of the beam",
    "plugins": "modules to import before anything is looked up: [my_package.tasks]",
    "dist_timeout_minutes": "how long processes wait for each other",
}
"""What the keys of LAVIS and of this room mean; those that only other tasks of LAVIS read are left out."""


OTHER_NAMES = {
    "learning_rate": "init_lr",
    "lr": "init_lr",
    "max_steps": "max_iters",
    "num_train_epochs": "max_epoch",
    "epochs": "max_epoch",
    "batch_size": "batch_size_train",
    "per_device_train_batch_size": "batch_size_train",
    "per_device_eval_batch_size": "batch_size_eval",
    "gradient_accumulation_steps": "accum_grad_iters",
    "max_grad_norm": "clip_grad_norm",
    "adam_beta1": "beta1",
    "adam_beta2": "beta2",
    "lr_scheduler_type": "lr_sched",
    "dataloader_num_workers": "num_workers",
    "logging_steps": "log_freq",
    "save_steps": "save_freq",
    "eval_steps": "iters_per_inner_epoch",
    "resume_from_checkpoint": "resume_ckpt_path",
    "max_new_tokens": "max_len",
    "min_new_tokens": "min_len",
    "beam_size": "num_beams",
    "bf16": "amp",
    "fp16": "amp",
}
"""What transformers and others call a key → what it is called here."""


def run_defaults(run: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of this room under those of the task and the runner that ``run`` names."""
    task, runner = run_classes(run)
    return {**RUN_DEFAULTS, **getattr(task, "RUN_DEFAULTS", {}), **getattr(runner, "RUN_DEFAULTS", {})}


def run_ranges(run: Mapping[str, Any]) -> dict[str, Range]:
    """The ranges of this room under those of the task and the runner that ``run`` names."""
    task, runner = run_classes(run)
    choices = {key: Choice(tuple(values)) for key, values in getattr(runner, "RUN_CHOICES", {}).items()}
    of_classes = {**getattr(task, "RUN_RANGES", {}), **getattr(runner, "RUN_RANGES", {})}
    return {**RUN_RANGES, **of_classes, **choices}


def run_classes(run: Mapping[str, Any]) -> tuple[type | None, type | None]:
    runner = run.get("runner", RUN_DEFAULTS["runner"])
    return registered_class("task", run.get("task")), registered_class("runner", runner)
