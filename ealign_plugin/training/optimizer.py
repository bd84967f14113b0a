"""The optimiser: AdamW, its parameter groups and rates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ealign_plugin.errors import UserError
from ealign_plugin.models.trainable import part_of
from ealign_plugin.validation import Number, unknown

LEARNING_RATES = Number(above=0)


def build_optimizer(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    betas: tuple[float, float],
    lrs: Mapping[str, float] | None = None,
) -> torch.optim.AdamW:
    """AdamW over the parameters of `parameter_groups`, whose arguments these are.

    Args:
        model: After it was sharded.
        lr: The learning rate, ``run.init_lr``.
        weight_decay: Of matrices.
        betas: AdamW's.
        lrs: Part → its own learning rate.
    """
    groups = parameter_groups(model, lr, weight_decay, lrs)
    return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True)


def parameter_groups(
    model: nn.Module, lr: float, weight_decay: float, lrs: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """AdamW's groups: each trained parameter once, by part, vectors apart from the rest.

    Norms, biases and other vectors (at most one dimension) are not decayed; everything else is, query tokens
    [1, Q, F] and position embeddings too, as in LAVIS (``get_optimizer_params``, RunnerBase.optimizer).

    Args:
        model: A model after `set_trainable`; one without ``PARTS`` is one part, ``model``.
        lr: The learning rate, ``run.init_lr``.
        weight_decay: Of matrices.
        lrs: Part → its own learning rate, where it differs; ``run.lrs``.

    Returns:
        Groups ``{params, name, lr, lr_scale, weight_decay}``. A schedule that moves ``lr`` sets
        ``lr_scale`` times its rate, so warm-up and cosine have the same shape for each part.

    Raises:
        UserError: nothing is trained, a rate that is not above 0, or one for a part that is not trained.
    """
    grouped: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            grouped.setdefault((part_of(model, name), parameter.ndim > 1), []).append(parameter)
    if not grouped:
        raise UserError("model.trainable: no parameter is left to train; name at least one part")
    parts = list(dict.fromkeys(part for part, _ in grouped))
    rates = {"run.init_lr": lr, **{f"run.lrs.{part}": rate for part, rate in (lrs or {}).items()}}
    for key, rate in rates.items():
        LEARNING_RATES.check(key, rate)
    for part in lrs or {}:
        if part not in parts:
            problem = unknown("run.lrs", part, parts, "part", list_all=True)
            raise UserError(f"{problem}; only trained parts have a rate, see model.trainable")
    return [
        {
            "params": parameters,
            "name": part if decayed else f"{part} (vectors)",
            "lr": (rate := (lrs or {}).get(part, lr)),
            "lr_scale": rate / lr,
            "weight_decay": weight_decay if decayed else 0.0,
        }
        for (part, decayed), parameters in grouped.items()
    ]
