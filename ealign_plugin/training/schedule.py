"""The learning rate of each iteration."""

from __future__ import annotations

import math

from torch.optim import Optimizer


class WarmupCosine:
    """Linear warm-up, then a cosine down to ``min_lr``, moved at every iteration.

    ::

        init_lr        ╭──╮
                      ╱    ╲
        warmup_lr    ╱      ╰── min_lr
                     0  warmup_steps   max_iters

    A group of the optimiser may scale its rate by ``lr_scale``.

    Args:
        optimizer: The optimiser whose groups are set.
        max_iters: All iterations; afterwards the rate stays ``min_lr``.
        min_lr: Rate at the end.
        init_lr: Rate after the warm-up.
        warmup_start_lr: Rate at the first iteration; below 0 it is ``init_lr / warmup_steps``.
        warmup_steps: Iterations of the warm-up.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        max_iters: int,
        min_lr: float,
        init_lr: float,
        warmup_start_lr: float = -1.0,
        warmup_steps: int = 0,
    ) -> None:
        self.optimizer, self.max_iters = optimizer, max_iters
        self.min_lr, self.init_lr, self.warmup_steps = min_lr, init_lr, warmup_steps
        self.warmup_start_lr = warmup_start_lr if warmup_start_lr >= 0 else init_lr / max(1, warmup_steps)

    def lr_at(self, iteration: int) -> float:
        """The rate of this iteration, counted from 0."""
        if iteration < self.warmup_steps:
            risen = iteration / self.warmup_steps
            return self.warmup_start_lr + (self.init_lr - self.warmup_start_lr) * risen
        done = (iteration - self.warmup_steps) / max(1, self.max_iters - self.warmup_steps)
        return self.min_lr + (self.init_lr - self.min_lr) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    def set_rate(self, iteration: int) -> None:
        """Set the rate of this iteration in all groups."""
        rate = self.lr_at(iteration)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)


def base_rate(optimizer: Optimizer) -> float:
    """The learning rate of the groups that do not scale it."""
    first = optimizer.param_groups[0]
    return first["lr"] / first.get("lr_scale", 1.0)
