"""The model of a dry run: built on the meta device; of weights and checkpoints only the headers are read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ealign_plugin.cli.dry_run.problems import collected
from ealign_plugin.cli.dry_run.table import format_bytes
from ealign_plugin.host.registration import registered_class
from ealign_plugin.models.base import NewsModel
from ealign_plugin.models.meta import build_on_meta, set_up_on_meta
from ealign_plugin.models.section import plain
from ealign_plugin.models.weights.check import check_checkpoint, checkpoints, origin_of
from ealign_plugin.training.checkpoints.store import find_weights
from ealign_plugin.training.optimizer import parameter_groups


def check_model(cfg: DictConfig, run: Mapping[str, Any], problems: list[str]) -> tuple[NewsModel | None, str]:
    """The model on the meta device, ready to be trained, and where its weights come from.

    None where it is of another package, or cannot be built; the reason is then among the problems, as are
    weights and checkpoints that do not fit.
    """
    cls = registered_class("model", cfg.arch)
    if not issubclass(cls, NewsModel):
        return None, "of another package; it is not looked into"
    section = plain(cfg)
    model, origin = None, ""
    with collected(problems):
        model = build_on_meta(cls, section)
        with collected(problems):
            origin, download = origin_of(model, section)
            origin += f"; {format_bytes(download)} will be downloaded" if download else ""
        set_up_on_meta(model, section)
        for key, path in checkpoints(section, run):
            with collected(problems):
                resumed = key == "run.resume_ckpt_path" and Path(path).exists()
                check_checkpoint(model, key, path, find_weights(path) if resumed else Path(path))
                origin += f"; then {path}"
        if not run["evaluate"]:
            with collected(problems):
                parameter_groups(model, float(run["init_lr"]), float(run["weight_decay"]), run.get("lrs"))
    return model, origin
