"""Models on two processes, wrapped this way or that, learn and answer as one process does."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

from ealign_plugin.errors import UserError
from ealign_plugin.models import Llava
from ealign_plugin.training.sharding import unsharded, wrap
from ealign_plugin.training.torch_interfaces import local_tensor
from tests.training.processes import (
    CPU,
    LORA,
    PLAIN,
    answers,
    build,
    full,
    samples,
    steps_of_half,
    train,
    weights,
)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("ddp", {"trainable": "connector+llm"}),
        ("fsdp", {}),
        ("fsdp", {"batching": "padded", "gradient_checkpointing": True}),
        ("fsdp", {"family": Llava, "trainable": "connector+llm"}),
        ("fsdp", {"trainable": "connector"}),
        ("fsdp", LORA),
    ],
)
def test_steps_and_evaluations_are_those_of_one_process(process_pair, kind, changes):
    model = build(**changes)
    frozen = {name: full(p) for name, p in model.named_parameters() if not p.requires_grad}
    before = answers(model, 1)
    norms = train(model, [samples()], PLAIN, steps=2)
    after = answers(model, 1)
    norms += train(model, [samples()], PLAIN, steps=1)
    for found in process_pair(steps_of_half, kind, False, **changes):
        torch.testing.assert_close(found[0], norms, rtol=1e-4, atol=0)
        torch.testing.assert_close(found[1], weights(model), rtol=0, atol=1e-5)
        for one, other in zip(found[2], (before, after), strict=True):
            torch.testing.assert_close(one[:2], other[:2], rtol=0, atol=1e-4)
            assert one[2] == other[2]
        assert all(torch.equal(found[1][name], value) for name, value in frozen.items())


@pytest.mark.parametrize(
    ("amp", "param_dtype", "changes"),
    [
        ("bf16", None, {**LORA, "dtype": "bf16"}),
        ("bf16", None, {"trainable": "connector", "dtype": "bf16", "vision_dtype": "bf16"}),
        ("fp16", None, {"trainable": "connector"}),
        (False, torch.bfloat16, {}),
    ],
)
def test_half_precision_beside_full_precision_can_be_sharded(process_pair, amp, param_dtype, changes):
    model = build(**changes)
    norms = train(model, [samples()], PLAIN, steps=2)
    loss = answers(model, 1)[1]
    for found in process_pair(steps_of_half, "fsdp", amp, param_dtype, **changes):
        torch.testing.assert_close(found[0][:2], norms, rtol=0.05, atol=0)
        torch.testing.assert_close(found[2][1][1].float(), loss, rtol=0.02, atol=0)
        types = {name: value.dtype for name, value in found[1].items()}
        assert types == {name: value.dtype for name, value in model.named_parameters()}


def weights_not_here(kind: str) -> float:
    model = wrap(build(), kind, CPU)
    local = map(local_tensor, model.parameters())
    return sum(map(torch.numel, local)) / sum(map(torch.numel, build().parameters()))


def test_each_process_holds_its_share(process_pair):
    assert process_pair(weights_not_here, "ddp") == [1, 1]
    assert process_pair(weights_not_here, "fsdp") == pytest.approx([0.5, 0.5], abs=0.01)


def test_alone_a_model_is_only_moved():
    model = nn.Linear(3, 1)
    assert wrap(model, "fsdp", CPU) is model and type(model) is nn.Linear
    with unsharded(model) as plain:
        assert plain is model


# What cannot be sharded


def refusal(kind: str, make: Callable[[], nn.Module]) -> str:
    try:
        wrap(make(), kind, CPU)
    except UserError as error:
        return str(error)
    return ""


def whole_numbers() -> nn.Module:
    model = nn.Linear(2, 2)
    model.weight = nn.Parameter(torch.zeros(2, 2, dtype=torch.uint8), requires_grad=False)
    return model


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(build, batching="groups"), "beside model.batching 'groups' and model.max_tokens None, by"),
        (partial(build, max_tokens=99), "beside model.batching 'packed' and model.max_tokens 99, by"),
        (whole_numbers, "beside model.quantize, whose 4-bit weights cannot be sharded; 'ddp' expected"),
    ],
)
def test_what_cannot_be_sharded(process_pair, make, message):
    for found in process_pair(refusal, "fsdp", make):
        assert found.startswith(f"run.parallel: 'fsdp' found {message}")
    assert process_pair(refusal, "ddp", make) == ["", ""]


def test_unknown_ways_to_wrap_are_refused():
    with pytest.raises(UserError, match="run.parallel: 'fsdp2' found; 'ddp' or 'fsdp' expected"):
        wrap(nn.Linear(1, 1), "fsdp2", CPU)
