"""Learning-rate schedules, registered with LAVIS."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer

from ealign_plugin.errors import UserError
from ealign_plugin.host.registration import current_run, registered
from ealign_plugin.training.schedule import WarmupCosine


@registered("lr_scheduler", "ealign_cosine")
class CosineSchedule(WarmupCosine):
    """`WarmupCosine` with the arguments and the way of counting of LAVIS's schedules.

    LAVIS's own cut a warm-up off at the end of the first (inner) epoch and move the cosine only once in each.

    Args:
        optimizer: The optimiser whose groups are set.
        max_epoch: Number of (inner) epochs; read only beside ``iters_per_epoch``.
        min_lr: Rate at the end.
        init_lr: Rate after the warm-up.
        warmup_start_lr: Rate at the first iteration; below 0 it is ``init_lr / warmup_steps``.
        warmup_steps: Iterations of the warm-up.
        iters_per_epoch: Iterations of an (inner) epoch. LAVIS's runners do not pass it; then it is
            ``run.iters_per_inner_epoch``, and the end is at ``run.max_iters``: their ``max_epoch`` is rounded
            down, to 0 where the run is shorter than an inner epoch.

    Raises:
        UserError: neither ``iters_per_epoch`` nor these keys are set (LAVIS's ``runner_base``).
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
        if iters_per_epoch is not None:
            self.iters_per_epoch, max_iters = iters_per_epoch, max_epoch * iters_per_epoch
        else:
            self.iters_per_epoch, max_iters = _iterations_of_the_run()
        super().__init__(
            optimizer,
            max_iters=max_iters,
            min_lr=min_lr,
            init_lr=init_lr,
            warmup_start_lr=warmup_start_lr,
            warmup_steps=warmup_steps,
        )

    def step(self, cur_epoch: int, cur_step: int) -> None:
        """Set the rate of this iteration, LAVIS's way of counting."""
        self.set_rate(cur_epoch * self.iters_per_epoch + cur_step)


def _iterations_of_the_run() -> tuple[int, int]:
    """Those of an inner epoch and all of them, from the config in LAVIS's registry."""
    run = current_run()
    if missing := [key for key in ("iters_per_inner_epoch", "max_iters") if run.get(key) is None]:
        raise UserError(
            f"run: {' and '.join(missing)} not set, expected by run.lr_sched ealign_cosine, which "
            "counts iterations; set it and use the runner ealign_runner or runner_iter"
        )
    return int(run.iters_per_inner_epoch), int(run.max_iters)
