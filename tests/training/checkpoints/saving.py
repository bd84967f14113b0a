"""A small model and its optimiser, and how tests save them into checkpoints."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from ealign_plugin.training.checkpoints.manifest import Checkpoint
from ealign_plugin.training.checkpoints.store import CheckpointStore


class Net(nn.Module):
    """Two trained layers and a norm; one that never gets a gradient, one that is frozen."""

    recipe = {"arch": "net"}

    def __init__(self, width: int = 5) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(3, width), nn.LayerNorm(width)
        self.last, self.unused = nn.Linear(width, 1), nn.Linear(2, 2)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)

    def forward(self, x):
        return self.last(self.norm(self.first(x)).tanh())

    def trainable_state(self):
        return {name: value for name, value in self.state_dict().items() if not name.startswith("frozen")}

    def load_checkpoint(self, path):
        self.load_state_dict(load_file(path), strict=False)


def make(seed: int = 0, wrap=lambda model: model) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A model and its AdamW with groups of different rates and keys."""
    torch.manual_seed(seed)
    model = wrap(Net())
    parts = {
        "llm": {"lr": 0.01, "lr_scale": 0.1, "weight_decay": 0.05},
        "vectors": {"lr": 0.1, "lr_scale": 1.0, "weight_decay": 0.0},
    }
    groups = [{"name": name, "params": [], **values} for name, values in parts.items()]
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups[parameter.ndim < 2]["params"].append(parameter)
    return model, torch.optim.AdamW(groups, lr=0.1, betas=(0.8, 0.98), fused=True)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range, rank: int = 0) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(1000 * rank + step)
        x = torch.randn(4, 3, generator=generator)
        optimizer.zero_grad()
        (model(x) - x.sum(1, keepdim=True)).square().mean().backward()
        optimizer.step()


def everything(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict:
    """Weights and optimiser state by names, on the CPU and whole."""

    def full(value):
        return value.full_tensor() if hasattr(value, "full_tensor") else value

    names = {parameter: name for name, parameter in model.named_parameters()}
    found = {name: full(value).detach().clone() for name, value in model.trainable_state().items()}
    for parameter, state in optimizer.state.items():
        found |= {f"{names[parameter]}/{key}": full(value).clone() for key, value in state.items()}
    groups = [{**group, "params": [names[p] for p in group["params"]]} for group in optimizer.param_groups]
    return found | {"groups": groups}


def assert_same(one: dict, two: dict) -> None:
    """Bit for bit, of the same types."""
    assert one.keys() == two.keys()
    assert one["groups"] == two["groups"]
    for name in one.keys() - {"groups"}:
        assert one[name].dtype == two[name].dtype and torch.equal(one[name], two[name]), name


def save(store: CheckpointStore, iters: int, metric: float | None = None, parts=None, **more) -> Checkpoint:
    config = {"model": {"arch": "net"}}
    rest = {"values": {"best": metric}, "per_rank": {"stream": "s"}, "manifest": {"config": config}, **more}
    store.save(*(parts or make()), iters=iters, metric=metric, **rest)
    return store.newest()


def names(store: CheckpointStore) -> set[str]:
    return {path.name for path in store.folder.iterdir()}


def damage_one_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
