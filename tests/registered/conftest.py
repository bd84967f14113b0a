"""Runners on a model of one weight."""

from __future__ import annotations

import logging

import pytest
import torch
from lavis.common.registry import registry
from omegaconf import OmegaConf

from ealign_plugin.registered.runner import EalignRunner
from tests.registered.factories import Few, Numbers, Task, Weight


@pytest.fixture
def make(tmp_path, monkeypatch):
    """``make(task, **run)`` -> a runner in a folder of its own, or in that of ``name``."""
    made = []

    def build(task: Task, model: Weight | None = None, datasets=None, name="", **run) -> EalignRunner:
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
        for place in ("output_dir", "result_dir"):
            registry.mapping["paths"].pop(place, None)
        sets = datasets or {"numbers": {"train": Numbers(), "val": Few(), "test": Few()}}
        torch.manual_seed(0)
        made.append(EalignRunner(config, task, model or Weight(), sets, name or f"run{len(made)}"))
        return made[-1]

    yield build
    for handler in list(logging.getLogger().handlers):
        if isinstance(handler, logging.FileHandler):
            logging.getLogger().removeHandler(handler)
