"""What tests of models share besides fixtures."""

import builtins
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from ealign_plugin.models import InstructBlip
from ealign_plugin.models.base import NewsModel
from ealign_plugin.training.optimizer import parameter_groups


@contextmanager
def outputs_of_generate(model: NewsModel) -> Iterator[list[torch.Tensor]]:
    """What transformers' ``generate`` returns inside: token ids, a tensor for each call.

    The class is watched, not the language model: writing may run on a view of it.
    """
    kind: Any = type(model.language_model)
    outputs: list[torch.Tensor] = []
    generate = kind.generate

    def watched(language_model: Any, **arguments: Any) -> torch.Tensor:
        outputs.append(generate(language_model, **arguments))
        return outputs[-1]

    kind.generate = watched
    try:
        yield outputs
    finally:
        del kind.generate  # it is inherited


CONFIG = OmegaConf.load(InstructBlip.default_config_path("micro")).model


def micro_instructblip(**changes: Any) -> InstructBlip:
    """A micro model whose config differs in these dotted keys."""
    config = CONFIG.copy()
    for name, value in changes.items():
        OmegaConf.update(config, name.replace("__", "."), value)
    return InstructBlip.from_config(config).eval()


def step(model: nn.Module, samples: dict[str, Any], times: int = 1) -> None:
    optimizer = torch.optim.AdamW(parameter_groups(model, 1e-3, 0.05))
    for _ in range(times):
        model.train()
        optimizer.zero_grad()
        model(samples)["loss"].backward()
        optimizer.step()


def changed(model: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    """Names of the weights that are not what they were, bit for bit."""
    return {name for name, value in model.state_dict().items() if not value.equal(before[name])}


def without(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """As if the package weren't installed."""
    real = builtins.__import__

    def refuse(name: str, *args: Any, **options: Any) -> Any:
        if name.split(".")[0] == package:
            raise ImportError(f"No module named {package!r}")
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
