"""How far a training run is, beside its weights: what its checkpoints hold and a resumed run begins with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ealign_plugin.training.metric_log import RunningMeans


@dataclass
class RunState:
    """How far a run is.

    Args:
        iters: Iterations done.
        ended: Whether the inner epoch that they end is logged and validated; True too where none ends here.
        best_iters: Iterations of the best validation so far; 0: there was none.
        best_metric: Its metric; higher is better.
        window: Losses since the last "step" line of the log.
        inner_epoch: Losses of the inner epoch so far.
    """

    iters: int = 0
    ended: bool = True
    best_iters: int = 0
    best_metric: float = -math.inf
    window: RunningMeans = field(default_factory=RunningMeans)
    inner_epoch: RunningMeans = field(default_factory=RunningMeans)

    def note_validation(self, metric: float) -> None:
        """Remember these weights if they are the best; those before the first iteration never are."""
        if self.iters and (metric > self.best_metric or not self.best_iters):
            self.best_iters, self.best_metric = self.iters, metric

    def to_json(self) -> dict[str, Any]:
        """JSON values; without ``iters``, which the checkpoint's manifest holds."""
        return {
            "best_iters": self.best_iters,
            "best_metric": self.best_metric if self.best_iters else None,
            "ended": self.ended,
            "window": self.window.sums,
            "inner_epoch": self.inner_epoch.sums,
        }

    def restore(self, iters: int, values: Mapping[str, Any], *, same_run: bool) -> None:
        """Go on from what `to_json` gave.

        Args:
            iters: Iterations done.
            values: What `to_json` gave.
            same_run: Whether it is a checkpoint of this run; another's best one is not in its folder.
        """
        self.iters, self.ended = iters, values["ended"]
        if same_run and values["best_metric"] is not None:
            self.best_iters, self.best_metric = values["best_iters"], values["best_metric"]
        self.window, self.inner_epoch = RunningMeans(values["window"]), RunningMeans(values["inner_epoch"])
