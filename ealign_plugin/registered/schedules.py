"""Learning-rate schedules, registered with LAVIS."""

from __future__ import annotations

import math
from typing import Any

from lavis.common.registry import registry
from torch.optim import Optimizer

from ealign_plugin.errors import UserError
from ealign_plugin.host.registration import registered


@registered("lr_scheduler", "ealign_cosine")
class CosineSchedule:
    """Linear warm-up, then a cosine down to ``min_lr``, moved at every iteration.

    ::

        init_lr        ╭──╮
                      ╱    ╲
        warmup_lr    ╱      ╰── min_lr
                     0  warmup_steps   all iterations

    LAVIS's own schedules cut a warm-up off at the end of the first (inner) epoch and move the cosine only
    once in each. A group of the optimiser may scale its rate by ``lr_scale``.

    Args:
        optimizer: The optimiser whose groups are set.
        max_epoch: Number of (inner) epochs; read only beside ``iters_per_epoch``.
        min_lr: Rate at the end.
        init_lr: Rate after the warm-up.
        warmup_start_lr: Rate at the first iteration; below 0 it is ``init_lr / warmup_steps``.
        warmup_steps: Iterations of the warm-up.
        iters_per_epoch: Iterations of an (inner) epoch. LAVIS's runners do not tell; then it is
            ``run.iters_per_inner_epoch``, and the end is at ``run.max_iters``: their ``max_epoch`` is rounded
            down, to 0 where the run is shorter than an inner epoch.

    Raises:
        UserError: neither ``iters_per_epoch`` nor these keys are given (LAVIS's ``runner_base``).
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_epoch: int,
        min_lr: float,
        init_lr: float,
        warmup_start_lr: float = -1.0,
        warmup_steps: int = 0,
        iters_per_epoch: int | None = None,
        **_: Any,
    ) -> None:
        self.optimizer = optimizer
        self.min_lr, self.init_lr, self.warmup_steps = min_lr, init_lr, warmup_steps
        self.warmup_start_lr = warmup_start_lr if warmup_start_lr >= 0 else init_lr / max(1, warmup_steps)
        if iters_per_epoch is not None:
            self.iters_per_epoch, self.max_iters = iters_per_epoch, max_epoch * iters_per_epoch
        else:
            run = registry.get("configuration").run_cfg
            if missing := [key for key in ("iters_per_inner_epoch", "max_iters") if run.get(key) is None]:
                raise UserError(
                    f"run: {' and '.join(missing)} not set, expected by run.lr_sched ealign_cosine, which "
                    "counts iterations; set it and use the runner ealign_runner or runner_iter"
                )
            self.iters_per_epoch, self.max_iters = int(run.iters_per_inner_epoch), int(run.max_iters)

    def lr_at(self, iteration: int) -> float:
        """The rate of this iteration, counted from 0."""
        if iteration < self.warmup_steps:
            risen = iteration / self.warmup_steps
            return self.warmup_start_lr + (self.init_lr - self.warmup_start_lr) * risen
        done = (iteration - self.warmup_steps) / max(1, self.max_iters - self.warmup_steps)
        return self.min_lr + (self.init_lr - self.min_lr) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    def step(self, cur_epoch: int, cur_step: int) -> None:
        """Set the rate of this iteration, LAVIS's way of counting."""
        rate = self.lr_at(cur_epoch * self.iters_per_epoch + cur_step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
