"""The optimiser of a run: parameter groups, decay, and learning rates by part of the model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ealign_plugin.errors import UserError
from ealign_plugin.models.trainable import set_trainable, trainable_names
from ealign_plugin.training.optimizer import build_optimizer, parameter_groups
from tests.messages import message_of
from tests.models.factories import changed


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


@pytest.mark.parametrize("trainable", ["connector", "connector+llm", "lora", "all"])
def test_groups_hold_each_trained_parameter_once(new_model, trainable):
    if trainable == "lora":
        pytest.importorskip("peft")
    model = new_model()
    set_trainable(model, trainable)
    found = [id(p) for group in parameter_groups(model, 1e-3, 0.1) for p in group["params"]]
    assert len(found) == len(set(found)) == len(trainable_names(model))
    assert set(found) == {id(p) for p in model.parameters() if p.requires_grad}


def test_vectors_are_not_decayed_and_the_rest_is(new_model):
    model = new_model()
    set_trainable(model, "all")
    groups = parameter_groups(model, 1e-3, 0.1)
    for group in groups:
        assert {p.ndim > 1 for p in group["params"]} == {group["weight_decay"] == 0.1}
        assert group["name"].endswith(" (vectors)") == (group["weight_decay"] == 0)
    (connector,) = [group for group in groups if group["name"] == "connector"]
    assert any(p is model.query_tokens for p in connector["params"])  # as in LAVIS


def test_each_part_has_its_own_rate(new_model):
    pytest.importorskip("peft")
    model = new_model()
    set_trainable(model, "vision+connector+lora")
    groups = parameter_groups(model, 1e-3, 0.1, {"vision": 1e-4, "lora": 5e-3})
    rates = {group["name"]: (group["lr"], pytest.approx(group["lr_scale"])) for group in groups}
    assert rates == {
        "vision": (1e-4, 0.1),
        "vision (vectors)": (1e-4, 0.1),
        "connector": (1e-3, 1.0),
        "connector (vectors)": (1e-3, 1.0),
        "lora": (5e-3, 5.0),
    }


def test_without_rates_of_their_own_parts_learn_as_one(new_model, samples):
    """The groups are a matter of bookkeeping: the same bits come out as with two groups for all parts."""
    models = [new_model(), new_model()]
    for model, grouped in zip(models, (True, False), strict=True):
        trained = list(model.parameters())
        plain = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": 0.05},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        groups = parameter_groups(model, 1e-3, 0.05) if grouped else plain
        optimizer = torch.optim.AdamW(groups, lr=1e-3, fused=True)
        for _ in range(2):
            optimizer.zero_grad()
            model(samples)["loss"].backward()
            optimizer.step()
    assert changed(models[0], models[1].state_dict()) == set()


def test_a_model_without_parts_is_one_part():
    groups = parameter_groups(nn.Linear(2, 3), 0.1, 0.01, {"model": 0.2})
    assert [(group["name"], group["lr"]) for group in groups] == [("model", 0.2), ("model (vectors)", 0.2)]


@pytest.mark.parametrize(
    ("lr", "lrs", "message"),
    [
        (0, {}, "run.init_lr: found 0, expected above 0"),
        (float("nan"), {}, "run.init_lr: found nan"),
        (float("inf"), {}, "run.init_lr: found inf"),
        (1e-3, {"connector": -1.0}, "run.lrs.connector: found -1.0"),
        (1e-3, {"connector": "1e-3"}, "run.lrs.connector: found '1e-3', expected a number above 0"),
        (1e-3, {"llm": 1e-5}, "run.lrs: unknown part 'llm'; expected one of connector; only trained"),
        (1e-3, {"llm": 1e-5}, "only trained parts have a rate, see model.trainable"),
        (1e-3, {"conector": 1e-5}, "did you mean 'connector'?"),
    ],
)
def test_rates_that_cannot_be(new_model, lr, lrs, message):
    model = new_model()
    set_trainable(model, "connector")
    assert message in message_of(parameter_groups, model, lr, 0.1, lrs)


def test_nothing_to_train():
    message = message_of(parameter_groups, nn.Linear(2, 3).requires_grad_(False), 1e-3, 0.1)
    assert message.startswith("model.trainable: no parameter is left to train")
