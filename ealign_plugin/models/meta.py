"""Models without memory: parameters on the meta device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def shapes_only() -> Iterator[None]:
    """Parameters made inside are on the meta device: no memory, no random numbers. Buffers hold values."""
    register = nn.Module.register_parameter

    def on_meta(self: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and not parameter.is_meta:
            parameter = nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
        register(self, name, parameter)

    nn.Module.register_parameter = on_meta
    try:
        yield
    finally:
        nn.Module.register_parameter = register


def give_memory(model: nn.Module) -> None:
    """Parameters on the meta device get memory, its content left to chance; tied ones stay tied."""
    made: dict[nn.Parameter, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            if parameter.is_meta:
                if parameter not in made:
                    empty = torch.empty_like(parameter, device="cpu")
                    made[parameter] = nn.Parameter(empty, parameter.requires_grad)
                setattr(module, name, made[parameter])
