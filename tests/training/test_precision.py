"""Mixed precision: types, the scale of fp16, steps that overflow."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from ealign_plugin.errors import UserError
from ealign_plugin.training.accumulation import accumulate
from ealign_plugin.training.precision import Precision
from ealign_plugin.training.sharding import wrap
from tests.training.processes import (
    CPU,
    PLAIN,
    weights,
)


def overflow(kind: str) -> Any:
    """Two steps; in the first, gradients of the last process overflow, whose losses are finite."""
    rank, last = (dist.get_rank(), dist.get_world_size() - 1) if dist.is_initialized() else (0, 0)
    torch.manual_seed(0)
    model = wrap(nn.Linear(3, 4), kind, CPU)
    first = weights(model)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    precision = Precision("fp16", CPU)
    found = []
    for factor in (1e36 if rank == last else 0.1, 0.1):
        optimizer.zero_grad(set_to_none=True)
        loss = partial(lambda factor, x: {"loss": model(x).float().sum() * factor}, factor)
        step = accumulate(model, [torch.ones(2, 3)] * 2, loss, precision)
        done = precision.step(optimizer, model.parameters(), clip=1.0)
        same = all(torch.equal(value, first[name]) for name, value in weights(model).items())
        found.append((step.bad, done.skipped, same))
    return found, precision.state_dict()["scale"]


def test_a_step_that_overflows_fp16_is_skipped_by_all(process_pair):
    wanted = [(False, True, True), (False, False, False)], 2.0**15
    assert [overflow("ddp"), *process_pair(overflow, "ddp"), *process_pair(overflow, "fsdp")] == [wanted] * 5


def test_a_resumed_run_goes_on_with_its_scale():
    precision, other = Precision("fp16", CPU), Precision("fp16", CPU)
    precision.scaler.scale(torch.ones(1))
    precision.scaler.update(2.0**7)
    state = json.loads(json.dumps(precision.state_dict()))
    other.load_state_dict(state)
    assert other.scaler.get_scale() == 2.0**7
    other.load_state_dict(PLAIN.state_dict())  # of a run in another precision
    assert other.scaler.get_scale() == 2.0**7
    Precision(True, CPU).load_state_dict(state)


@pytest.mark.parametrize(
    ("amp", "dtype"),
    [
        *[(False, torch.float32), (None, torch.float32)],
        *[(True, torch.bfloat16), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
    ],
)
def test_forward_passes_compute_in_the_type_that_was_asked_for(amp, dtype):
    with Precision(amp, CPU).autocast():
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == dtype


def test_unknown_precisions_are_refused():
    with pytest.raises(UserError, match="run.amp: 'int8' found; false, true, 'bf16' or 'fp16' expected"):
        Precision("int8", CPU)
