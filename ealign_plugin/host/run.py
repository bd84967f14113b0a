"""One run from a config: its folder, its seed, and what LAVIS builds for it.

What a script in LAVIS's repository does that its package lacks, and more: each run has a folder of its own,
and the seed is set again before the model is built, so that making the data for the first time does not
change it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import torch
from lavis import tasks
from lavis.common.logger import setup_logger
from lavis.runners import RunnerIter
from lavis.tasks.base_task import BaseTask
from omegaconf import DictConfig, OmegaConf

from ealign_plugin import distributed
from ealign_plugin.distributed import RankInfo, run_on_first_rank
from ealign_plugin.host.config import HostConfig
from ealign_plugin.host.environment import write_environment
from ealign_plugin.host.registration import forget_run_paths, registered_class
from ealign_plugin.host.run_folder import (
    discard_if_empty,
    link_latest,
    make_run_folder,
    unlock,
    unwritable,
)

log = logging.getLogger(__name__)


def run_config(cfg: HostConfig) -> None:
    """Join the other processes, make or find the run's folder, build everything and start the runner.

    Args:
        cfg: The checked config; its ``run`` section gets this process's device, rank and folder.

    Raises:
        UserError: a device that is not there, a folder that cannot be written, and whatever task, data sets,
            model and runner refuse.
    """
    resolved = OmegaConf.to_yaml(cfg.config, resolve=True)  # before this process's rank and folder come in
    run = cfg.run_cfg
    run.device = distributed.choose_device(run.device)
    timeout = timedelta(minutes=float(run.dist_timeout_minutes))
    write_rank_info(run, distributed.join(run.device, url=run.dist_url, timeout=timeout))
    try:
        with run_folder(cfg, resolved) as folder, only_first_rank_prints(cfg):
            build_and_run(cfg, folder, resolved)
    finally:
        distributed.leave()


def write_rank_info(run: DictConfig, info: RankInfo | None) -> None:
    """Write which process this is to where LAVIS's runners look.

    Args:
        run: The section ``run`` with its ``device``; gets ``rank``, ``world_size``, ``gpu`` (number of the
            CUDA device, None on a CPU) and ``distributed``.
        info: None for a process that was started alone.
    """
    rank, world_size, local_rank = info or RankInfo(0, 1, 0)
    run.distributed, run.rank, run.world_size = info is not None, rank, world_size
    run.gpu = local_rank if run.device == "cuda" else None


@contextlib.contextmanager
def run_folder(cfg: HostConfig, resolved: str) -> Iterator[Path]:
    """The same folder in every process, new or an interrupted run's; removed if nothing is left in it."""
    run = cfg.run_cfg
    resumes = resumes_in_folder(run.runner) and (run.evaluate or run.get("resume") == "auto")
    config = resolved if resumes else None
    folder = run_on_first_rank(lambda: make_run_folder(run.output_dir, run.task, datetime.now(), config))
    try:
        yield folder
    finally:
        if run.rank == 0:
            unlock(folder)
            discard_if_empty(folder)


def resumes_in_folder(runner: str) -> bool:
    """Whether a runner resumes in the folder of an interrupted run; LAVIS's own begin anew."""
    return getattr(registered_class("runner", runner), "RESUMES_IN_FOLDER", False)


def counts_steps(runner: str) -> bool:
    """Whether a runner counts steps; LAVIS's other runner counts epochs of data that end."""
    return issubclass(registered_class("runner", runner), RunnerIter)


def build_task(cfg: HostConfig) -> BaseTask:
    """The task that ``run.task`` names.

    Raises:
        UserError: what the task refuses in the section ``run``.
    """
    return tasks.setup_task(cfg)


@contextlib.contextmanager
def only_first_rank_prints(cfg: HostConfig) -> Iterator[None]:
    """LAVIS's meters print; of several processes the first one's output is enough. stderr stays."""
    if cfg.run_cfg.rank == 0:
        yield
        return
    with open(os.devnull, "w") as devnull, contextlib.redirect_stdout(devnull):
        yield


def build_and_run(cfg: HostConfig, folder: Path, resolved: str) -> None:
    """Build task, data sets, model and runner, in this order, write down what is run, and run it.

    Args:
        cfg: The config, with this process's rank.
        folder: The run's folder.
        resolved: The config as text, which the folder keeps.
    """
    seed = int(cfg.run_cfg.seed) + cfg.run_cfg.rank
    setup_logger()
    # RunnerBase joins its own folder, output_dir and job id; an absolute middle part drops the first.
    cfg.run_cfg.output_dir = str(folder.parent)
    forget_run_paths()
    seed_all(seed)
    task = build_task(cfg)
    datasets = task.build_datasets(cfg)
    seed_all(seed)
    model = task.build_model(cfg)
    if cfg.run_cfg.rank == 0:
        try:
            (folder / "config.yaml").write_text(resolved, encoding="utf-8")
            write_environment(folder)
            if not cfg.run_cfg.evaluate:
                link_latest(folder)
        except OSError as error:
            raise unwritable(folder, error) from error
        log.info("this run writes to %s", folder)
    runner_class = registered_class("runner", cfg.run_cfg.runner)
    runner_class(cfg=cfg, job_id=folder.name, task=task, model=model, datasets=datasets).train()


def seed_all(seed: int) -> None:
    """Seed Python, numpy and torch, and ask cuDNN for the same kernels each time."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
