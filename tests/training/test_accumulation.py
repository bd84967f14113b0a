"""One step of two processes is that of one process with all of the batch."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from ealign_plugin.training.accumulation import accumulate
from ealign_plugin.training.sharding import wrap
from tests.training.processes import (
    CPU,
    LENGTHS,
    PLAIN,
    batches,
    build,
    gradients,
    samples,
)


def gradients_of_half(kind: str, count: int, **changes: Any) -> dict[str, torch.Tensor]:
    """As LAVIS seeds them, the processes have other random weights before they are wrapped."""
    model = wrap(build(dist.get_rank(), **changes), kind, CPU)
    accumulate(model, batches(dist.get_rank(), 2, count), model, PLAIN)
    return gradients(model)


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("reduction", ["token", "example"])
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_with_half_the_batch_each_give_the_gradients_of_one(
    process_pair, kind, reduction, count
):
    model = build(loss_reduction=reduction)
    model(samples())["loss"].backward()
    wanted = gradients(model)
    for found in process_pair(gradients_of_half, kind, count, loss_reduction=reduction):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


def test_means_of_means_would_be_something_else():
    model = build(loss_reduction="token")
    accumulate(model, batches(0, 1, 2), lambda batch: {"loss": model(batch)["loss"]}, PLAIN)
    found = gradients(model)
    model = build(loss_reduction="token")
    accumulate(model, batches(0, 1, 2), model, PLAIN)
    other = (found[name] - value for name, value in gradients(model).items())
    assert max(difference.abs().max() for difference in other) > 1e-3


# One process


def test_one_batch_in_one_process_is_plain_backward():
    model, plain = build(), build()
    output = plain(samples())
    output["loss"].backward()
    step = accumulate(model, [samples()], model, PLAIN)
    assert all(torch.equal(value, gradients(plain)[name]) for name, value in gradients(model).items())
    assert all(torch.equal(value, output[name]) for name, value in step.outputs[0].items())
    assert step[1:] == (output["weight"], False, False)
    assert not step.outputs[0]["loss"].requires_grad


@pytest.mark.parametrize("count", [2, 8])
def test_batches_of_one_process_are_one_batch(count):
    model, plain = build(), build()
    plain(samples())["loss"].backward()
    step = accumulate(model, batches(0, 1, count), model, PLAIN)
    torch.testing.assert_close(gradients(model), gradients(plain), rtol=0, atol=1e-6)
    assert len(step.outputs) == count and step.weight == len(LENGTHS)


def test_a_model_that_knows_no_weights_counts_batches():
    model = nn.Linear(3, 1, bias=False)
    x = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    step = accumulate(model, list(x), lambda batch: {"loss": model(batch).mean()}, PLAIN)
    torch.testing.assert_close(model.weight.grad[0], x.mean((0, 1)))
    assert step.weight == 2


# What processes tell each other


def outcome(kind: str, stop: tuple[bool, bool], losses: tuple[list[float], list[float]]) -> list[tuple]:
    rank = dist.get_rank()
    model = wrap(nn.Linear(1, 1), kind, CPU)
    own = [torch.tensor([[value]]) for value in losses[rank]]
    return accumulate(model, own, lambda x: {"loss": model(x).sum()}, PLAIN, stop=stop[rank])[1:]


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
@pytest.mark.parametrize(
    ("stop", "losses", "answer"),
    [
        ((False, False), ([1.0], [1.0]), (2, False, False)),
        ((False, True), ([1.0, 1.0], [1.0, 1.0]), (4, False, True)),
        ((False, False), ([math.nan, 1.0], [1.0, 1.0]), (4, True, False)),
        ((True, False), ([1.0], [math.inf]), (2, True, True)),
    ],
)
def test_all_hear_of_a_signal_and_of_a_loss_that_is_not_finite(process_pair, kind, stop, losses, answer):
    assert process_pair(outcome, kind, stop, losses) == [answer, answer]
