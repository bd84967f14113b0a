"""``python -m lavis.train``: what a script in LAVIS's repository does that its package lacks, and more.

Read the YAML, join the other processes, build task, data sets and model, run the runner. Beyond the script:
plugins are found, everything is checked before anything is built, each run has a folder of its own, and the
seed is set again before the model is built, so that making the data for the first time does not change it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from ealign_plugin.cli.command_line import parse
from ealign_plugin.cli.console import guarded
from ealign_plugin.cli.quiet import quiet
from ealign_plugin.host.compat import check_host, import_error
from ealign_plugin.host.config_file import read_config

if TYPE_CHECKING:
    from ealign_plugin.host.config import HostConfig


log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Train and test; returns 0, 2 after bad input (one line on stderr), 130 after Ctrl-C."""
    return run_command("lavis.train", argv)


def run_command(command: str, argv: Sequence[str] | None) -> int:
    """``lavis.train`` or ``lavis.evaluate`` with these arguments (None: the process's own)."""
    quiet()
    return guarded(lambda: run(command, argv))


def run(command: str, argv: Sequence[str] | None) -> None:
    args = parse(command, argv)
    check_host()
    read_config(args.cfg_path, args.options)  # a bad file is told before the imports below take their seconds
    try:
        import lavis  # noqa: F401
    except ImportError as error:
        raise import_error(error) from error

    from ealign_plugin import distributed
    from ealign_plugin.host.config import load_config
    from ealign_plugin.host.plugins import load_installed

    load_installed()
    cfg = load_config(args.cfg_path, args.options)
    if command == "lavis.evaluate":
        cfg.run_cfg.evaluate = True
    if args.checkpoint:
        cfg.run_cfg.resume_ckpt_path = str(Path(args.checkpoint).resolve())  # `latest` may move
    if args.dry_run:  # by name: it stands on the top floor, which sees every room
        import_module("ealign_plugin.cli.dry_run").dry_run(cfg, args.cfg_path)
        return
    resolved = OmegaConf.to_yaml(cfg.config, resolve=True)  # before this process's rank and folder come in
    cfg.run_cfg.device = distributed.choose_device(cfg.run_cfg.device)
    distributed.join(cfg.run_cfg)
    try:
        with run_folder(cfg, resolved) as folder, only_first_prints(cfg):
            build_and_run(cfg, folder, resolved)
    finally:
        distributed.leave()


@contextlib.contextmanager
def run_folder(cfg: HostConfig, resolved: str) -> Iterator[Path]:
    """The same folder in every process, new or an interrupted run's; gone again if nothing is left in it."""
    from ealign_plugin.distributed import run_on_first_rank
    from ealign_plugin.host.run_folder import discard_if_empty, make_run_folder, unlock

    run = cfg.run_cfg
    go_on = goes_on(run.runner) and (run.evaluate or run.get("resume") == "auto")
    config = resolved if go_on else None
    folder = run_on_first_rank(lambda: make_run_folder(run.output_dir, run.task, datetime.now(), config))
    try:
        yield folder
    finally:
        if run.rank == 0:
            unlock(folder)
            discard_if_empty(folder)


def goes_on(runner: str) -> bool:
    """Whether a runner goes on in the folder of an interrupted run; LAVIS's own begin anew."""
    from lavis.common.registry import registry

    return getattr(registry.get_runner_class(runner), "GOES_ON", False)


@contextlib.contextmanager
def only_first_prints(cfg: HostConfig) -> Iterator[None]:
    """LAVIS's meters print; of several processes the first one's output is enough. stderr stays."""
    if cfg.run_cfg.rank == 0:
        yield
        return
    with open(os.devnull, "w") as devnull, contextlib.redirect_stdout(devnull):
        yield


def build_and_run(cfg: HostConfig, folder: Path, resolved: str) -> None:
    from lavis import tasks
    from lavis.common.logger import setup_logger
    from lavis.common.registry import registry

    from ealign_plugin.host.environment import write_environment
    from ealign_plugin.host.run_folder import link_latest, unwritable

    seed = int(cfg.run_cfg.seed) + cfg.run_cfg.rank
    setup_logger()
    # RunnerBase joins its own folder, output_dir and job id; an absolute middle part drops the first.
    cfg.run_cfg.output_dir = str(folder.parent)
    for name in ("output_dir", "result_dir"):
        registry.mapping["paths"].pop(name, None)  # of an earlier run in this process, else KeyError
    seed_all(seed)
    task = tasks.setup_task(cfg)
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
            raise unwritable(str(folder.parent), folder, error.strerror or str(error)) from error
        log.info("this run writes to %s", folder)
    runner_class = registry.get_runner_class(cfg.run_cfg.runner)
    runner_class(cfg=cfg, job_id=folder.name, task=task, model=model, datasets=datasets).train()


def seed_all(seed: int) -> None:
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


if __name__ == "__main__":
    sys.exit(main())
