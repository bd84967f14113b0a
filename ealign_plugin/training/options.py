"""The options of a training run: each with its default, its help and its range, once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ealign_plugin.training.sharding import KINDS
from ealign_plugin.validation import option


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """What ``run`` says about the training, beside what has no default (``max_iters``, ``init_lr`` …).

    `ealign_plugin.validation` makes from it what the config's checks, the runner and ``ealign list options``
    need, so that no default stands twice.
    """

    accum_grad_iters: int = option(1, "batches whose gradients are averaged for one step", least=1)
    amp: bool | str | None = option(
        False,
        "type that forward passes compute in: false (the weights' own), bf16 or true, fp16",
        choices=(False, True, "bf16", "fp16"),
    )
    beta1: float = option(0.9, "AdamW's first beta (LAVIS reads only beta2)", least=0, most=1)
    beta2: float = option(0.999, "AdamW's second beta", least=0, most=1)
    clip_grad_norm: float | None = option(1.0, "largest norm of the gradients; 0 turns clipping off", least=0)
    keep_best: int = option(1, "so many checkpoints with the best validation stay", least=1)
    keep_last: int = option(2, "so many of the newest checkpoints stay", least=1)
    log_freq: int = option(50, "steps between lines of log.txt", least=1)
    lr_sched: str = option("ealign_cosine", "name of the learning-rate schedule")
    lrs: Mapping[str, float] = option({}, "learning rates of parts that have one of their own: {llm: 1.0e-5}")
    own_selections_every: int = option(
        100, "steps between two selections of the model itself in training photos", least=1
    )
    own_selections_from: int | None = option(
        None,
        "step after which the model selects in the photos that are read next; a share of the training "
        "contexts (recipe.own_share) is made of that from then on; null: never",
        least=1,
    )
    own_selections_photos: int = option(
        128, "photos that it selects in each time, of each data set, in all processes together", least=1
    )
    parallel: str = option(
        "ddp",
        "of several processes: ddp: each holds the model; fsdp: each holds a part of it",
        choices=KINDS,
    )
    resume: str | None = option(
        None,
        "auto: go on with the newest interrupted run of this config if there is one; null: don't",
        choices=(None, "auto"),
    )
    save_freq: int | None = option(
        None, "steps between checkpoints; null: one after each validation", least=1
    )
    validate_at_start: bool = option(False, "validate before the first step too")

    @classmethod
    def from_run(cls, run: Mapping[str, Any]) -> TrainingOptions:
        """Read them from a config's ``run`` section, which may hold other keys too; missing ones have
        their default."""
        return cls(**{each.name: run[each.name] for each in fields(cls) if each.name in run})
