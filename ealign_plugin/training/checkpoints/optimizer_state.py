"""The optimiser's state by the names of its parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ealign_plugin.errors import UserError
from ealign_plugin.files import read_json
from ealign_plugin.training.checkpoints.manifest import ADVICE, DTYPES, STATE, Checkpoint


def read_state(
    checkpoint: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read ``state.json`` and make room for the optimiser's tensors.

    Returns:
        What the file holds (``groups``, ``plain``, ``tensors``, ``values``, ``ranks``), and by
        "<parameter>/<key>" an empty tensor for each that the checkpoint has, sharded as its parameter is.

    Raises:
        UserError: the file is damaged, or the state of other parameters.
    """
    path = checkpoint.folder / STATE
    state = read_json(path, advice=ADVICE)
    parameters = dict(model.named_parameters())
    try:
        before = [sorted(group["params"]) for group in state["groups"]]
        shapes = {name: (DTYPES[dtype], tuple(shape)) for name, (dtype, shape) in state["tensors"].items()}
        owners = {name.rpartition("/")[0] for name in (*shapes, *state["plain"])}
        size = sum(dtype.itemsize * math.prod(shape) for dtype, shape in shapes.values())
        if not isinstance(state["values"], dict) or not isinstance(state["ranks"], list):
            raise TypeError("values or ranks")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: it is no state of a checkpoint ({error}); use another checkpoint") from None
    now = [sorted(group["params"]) for group in named_groups(model, optimizer)]
    for number, (then, current) in enumerate(zip(before, now, strict=False)):
        if then != current:
            name = sorted(set(then) ^ set(current))[0]
            raise UserError(
                f"{path}: group {number} of the optimiser has {len(then)} parameters in the checkpoint, "
                f"{len(current)} now; the first that differs is {name}; set model.trainable and run.lrs "
                "back, or start anew from the weights (model.load_finetuned and model.finetuned)"
            )
    if len(before) != len(now):
        raise UserError(
            f"{path}: {len(before)} groups of the optimiser in the checkpoint, {len(now)} now; set "
            "model.trainable and run.lrs back"
        )
    if not owners <= {name for group in now for name in group}:
        raise UserError(
            f"{path}: it has the state of parameters that are not trained; use another checkpoint"
        )
    if size > sum(row["bytes"] for row in checkpoint.manifest["files"].values()):
        raise UserError(
            f"{path}: tensors of {size:,} bytes expected, the files are smaller; use another checkpoint"
        )
    tensors = {}
    for name, (dtype, shape) in shapes.items():
        parameter = parameters[name.rpartition("/")[0]]
        like = tuple(parameter.shape) == shape
        tensors[name] = (
            torch.empty_like(parameter, dtype=dtype, requires_grad=False)
            if like
            else torch.empty(shape, dtype=dtype)
        )
    return state, tensors


def set_optimizer(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    saved: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
) -> None:
    """Put a saved state into the optimiser; the options of its groups stay as they are now.

    Args:
        model: Whose parameters it has.
        optimizer: With the same groups as the saved one.
        saved: What `read_state` returned first.
        tensors: What `read_state` returned second, filled.
    """
    names = [name for group in named_groups(model, optimizer) for name in group["params"]]
    numbers = {name: number for number, name in enumerate(names)}
    state: dict[int, dict[str, Any]] = {}
    for name, value in (*tensors.items(), *saved["plain"].items()):
        parameter, _, key = name.rpartition("/")
        state.setdefault(numbers[parameter], {})[key] = value
    groups = []
    for before, group in zip(saved["groups"], named_groups(model, optimizer), strict=True):
        # Today's options hold: whoever changed a rate on the way wants it.
        groups.append({**before, **group, "params": [numbers[name] for name in group["params"]]})
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def named_groups(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """The optimiser's groups, ``params`` being names instead of parameters."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    return [{**group, "params": [names[p] for p in group["params"]]} for group in optimizer.param_groups]


def optimizer_state(
    model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The optimiser's state by names.

    Returns:
        Tensors by "<parameter>/<key>", of parameters that had a gradient; and ``groups``, ``plain`` (values
        that are no tensors) and ``tensors`` (type and shape of each) as JSON values.
    """
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    names = {parameter: name for name, parameter in model.named_parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            for key, value in optimizer.state.get(parameter, {}).items():
                target: dict[str, Any] = tensors if isinstance(value, Tensor) else plain
                target[f"{names[parameter]}/{key}"] = value
    shapes = {n: (str(t.dtype).removeprefix("torch."), list(t.shape)) for n, t in tensors.items()}
    return tensors, {"groups": named_groups(model, optimizer), "plain": plain, "tensors": shapes}
