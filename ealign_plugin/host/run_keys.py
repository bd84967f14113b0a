"""The keys that LAVIS 1.0.2 reads from ``run``, their types, defaults and ranges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ealign_plugin.host.registration import registered_class

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


# The smallest value of numbers in `run`.
LEAST = {
    **dict.fromkeys(("max_iters", "max_epoch", "iters_per_inner_epoch", "accum_grad_iters", "log_freq"), 1),
    **dict.fromkeys(("batch_size_train", "batch_size_eval", "keep_last", "keep_best", "save_freq"), 1),
    **dict.fromkeys(("num_workers", "warmup_steps", "init_lr", "min_lr", "weight_decay"), 0),
}


def run_defaults(run: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of this room under those of the task and the runner that ``run`` names."""
    task, runner = run_classes(run)
    return {**RUN_DEFAULTS, **getattr(task, "RUN_DEFAULTS", {}), **getattr(runner, "RUN_DEFAULTS", {})}


def run_classes(run: Mapping[str, Any]) -> tuple[type | None, type | None]:
    runner = run.get("runner", RUN_DEFAULTS["runner"])
    return registered_class("task", run.get("task")), registered_class("runner", runner)
