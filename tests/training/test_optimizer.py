"""The optimiser of a run; groups by part of the models are tested in tests/models/test_trainable.py."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ealign_plugin.errors import UserError
from ealign_plugin.training.optimizer import build_optimizer


def test_vectors_are_not_decayed_and_a_part_may_have_its_own_rate():
    optimizer = build_optimizer(
        nn.Linear(2, 3), lr=0.1, weight_decay=0.05, betas=(0.8, 0.95), lrs={"model": 0.2}
    )
    matrix, vector = optimizer.param_groups
    assert (matrix["name"], matrix["weight_decay"], matrix["lr"]) == ("model", 0.05, 0.2)
    assert (vector["name"], vector["weight_decay"], vector["lr_scale"]) == ("model (vectors)", 0.0, 2.0)
    assert matrix["betas"] == vector["betas"] == (0.8, 0.95)


def test_it_is_adamw():
    torch.manual_seed(0)
    ours, plain = nn.Linear(2, 3), nn.Linear(2, 3)
    plain.load_state_dict(ours.state_dict())
    optimizers = (
        build_optimizer(ours, lr=0.1, weight_decay=0.0, betas=(0.9, 0.999)),
        torch.optim.AdamW(plain.parameters(), lr=0.1, weight_decay=0.0, betas=(0.9, 0.999), fused=True),
    )
    for model, optimizer in zip((ours, plain), optimizers, strict=True):
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.ones(1, 2)).square().sum().backward()
            optimizer.step()
    assert torch.equal(ours.weight, plain.weight) and torch.equal(ours.bias, plain.bias)


def test_frozen_parameters_are_left_out():
    model = nn.Sequential(nn.Linear(2, 3).requires_grad_(False), nn.Linear(3, 1))
    optimizer = build_optimizer(model, lr=0.1, weight_decay=0.05, betas=(0.9, 0.999))
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in parameters} == {id(p) for p in model[1].parameters()}
    with pytest.raises(UserError, match="model.trainable: no parameter is left to train"):
        build_optimizer(model[0], lr=0.1, weight_decay=0.05, betas=(0.9, 0.999))
