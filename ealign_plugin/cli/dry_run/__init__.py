"""``python -m lavis.train --dry-run``: what a run would do and need, and everything that would stop it.

The model is built on the meta device, of weights and checkpoints only the headers are read, of shards the
index and the sizes. Nothing is made: no run folder, no MicroNews, no CUDA context; of a model on a hub its
configs and tokenizers are fetched, and the headers of its weights where these are not here yet.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from ealign_plugin.cli.dry_run.data import check_data_set, run_problems, size_problems
from ealign_plugin.cli.dry_run.model import check_model
from ealign_plugin.cli.dry_run.plan import (
    data_rows,
    describe_device,
    describe_memory,
    describe_parts,
    evaluation_rows,
    training_rows,
)
from ealign_plugin.cli.dry_run.problems import collected, doubts
from ealign_plugin.cli.dry_run.table import format_bytes, print_plan
from ealign_plugin.distributed import find_rank_info
from ealign_plugin.host.run import build_task
from ealign_plugin.models.cost.estimate import estimate_config
from ealign_plugin.validation import raise_all

if TYPE_CHECKING:
    from ealign_plugin.host.config import HostConfig


def dry_run(cfg: HostConfig, cfg_path: str | Path) -> None:
    """Check everything and print the plan; of several processes the first one does.

    Args:
        cfg: The checked config, before a process group is joined.
        cfg_path: Its file, for the message.

    Raises:
        UserError: with every problem found, one line each.
    """
    rank_info = find_rank_info(os.environ)
    if rank_info and rank_info.rank:
        return
    processes = rank_info.world_size if rank_info else 1
    run: dict[str, Any] = OmegaConf.to_container(cfg.run_cfg, resolve=True)
    problems: list[str] = []
    task = None
    with collected(problems):
        task = build_task(cfg)
    model, origin = check_model(cfg.model_cfg, run, problems)
    sets = [check_data_set(name, section, problems) for name, section in cfg.datasets_cfg.items()]
    problems += run_problems(run, sets)
    if model is not None:
        problems += size_problems(model, sets)
    raise_all(cfg_path, list(dict.fromkeys(problems)))  # what two parts need is checked for both

    rows = [("model", f"{cfg.model_cfg.arch}, type {cfg.model_cfg.model_type}"), ("", origin)]
    if model is not None:
        rows += [("", describe_parts(model))]
    rows += [row for one in sets for row in data_rows(one)]
    if not run["evaluate"]:
        rows += training_rows(run, sets, processes)
    rows += evaluation_rows(run, sets)
    rows += [("device", describe_device(run["device"], processes))]
    if model is not None:
        needs = estimate_config(cfg.model_cfg, run, processes=processes, model=model)
        rows += [("memory", describe_memory(needs, run))]
        if not run["evaluate"]:
            trained = 4 * sum(needs.trained.values())  # bytes in float32; AdamW keeps two more of each
            beside = f"{format_bytes(2 * trained)} beside it to resume"
            rows += [("checkpoint", f"{format_bytes(trained)}, and {beside}")]
    folder = (Path.cwd() / Path(run["output_dir"]).expanduser() / run["task"]).absolute()
    rows += [("output", f"{folder}/<date>_<time>")]
    print_plan(str(cfg_path), [*rows, *(("warning", doubt) for doubt in doubts(task, run))])
