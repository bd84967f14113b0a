"""One step of the optimiser, made of several batches on several processes; the precision it is made in.

::

    process 0   batch 0: mean over 40 tokens    batch 1: over 25     \\  gradient of the mean over all
    process 1   batch 0: mean over 12 tokens    batch 1: over 31     /  108 tokens, as of one large batch

A step of the runner::

    model = wrap(model, "fsdp", device)                        # once; the optimiser is built after it
    step = accumulate(model, batches, loss_of, precision, stop=signalled)
    if step.bad: ...                                           # the same in all processes
    precision.step(optimizer, model.parameters(), clip)

and an evaluation, in which each process runs as many forwards as it likes::

    with unsharded(model) as plain:
        plain.generate(samples)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ealign_plugin.training.precision import Precision
from ealign_plugin.training.torch_interfaces import local_tensor, multiply_in_place


class Step(NamedTuple):
    """What `accumulate` did.

    ``outputs``: what ``loss_of`` returned for each batch of this process, detached. Of all processes and
    batches: ``weight``: of how many tokens or examples the loss is the mean; ``bad``: a loss was not finite;
    ``stop``: a process asked to stop.
    """

    outputs: list[dict[str, Tensor]]
    weight: float
    bad: bool
    stop: bool


def accumulate(
    model: nn.Module,
    batches: Sequence[Any],
    loss_of: Callable[[Any], Mapping[str, Tensor]],
    precision: Precision,
    *,
    stop: bool = False,
) -> Step:
    """Gradients of the mean over all that is learnt from, whichever batch and process it is in.

    Means of means would weigh a token of a short batch more. All processes call this together, with as many
    batches each; they agree on ``bad`` and ``stop`` by the way. For one batch in one process it is the plain
    ``backward`` of its loss.

    A loss that isn't finite doesn't interrupt anything, the other processes wait for the gradients; whoever
    calls must not step then. Under ``fsdp`` gradients are averaged after each batch: kept whole until the
    last, they would take the memory that sharding spares.

    Args:
        model: What `wrap` returned; its gradients are empty.
        batches: On the device, at least one.
        loss_of: Batch → ``loss`` (scalar: a mean), ``weight`` (of how many; 1 where missing, as from LAVIS's
            models) and whatever else is to be in `Step.outputs`. Called under autocast.
        precision: Of the run.
        stop: Ask all processes to stop.
    """
    processes = dist.get_world_size() if dist.is_initialized() else 1
    alone = processes * len(batches) == 1
    outputs, tally = [], torch.zeros(())
    for number, batch in enumerate(batches):
        last = number == len(batches) - 1
        with nullcontext() if last else _without_reduction(model):
            with precision.autocast():
                output = loss_of(batch)
            loss = output["loss"]
            weight = torch.as_tensor(output.get("weight", 1.0), dtype=torch.float32, device=loss.device)
            bad = ~torch.isfinite(loss.detach())
            here = torch.stack([weight, bad.float(), torch.full_like(weight, stop)])
            tally = tally + here
            if number == 0 or last:
                total = _sum(tally)
            if number == 0:  # losses stay of their size when they are weighed, so that fp16 holds them
                unit = total[0] / processes
            precision.scaler.scale(loss if alone else loss * (weight / unit)).backward()
        outputs.append({name: _detached(value) for name, value in output.items()})
    if len(batches) > 1:
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        multiply_in_place([local_tensor(each) for each in gradients], unit * processes / total[0])
    weights, bads, stops = total.tolist()
    return Step(outputs, weights, bads > 0, stops > 0)


def _without_reduction(model: nn.Module) -> AbstractContextManager[None]:
    """Inside, DistributedDataParallel does not average gradients yet."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()


def _sum(values: Tensor) -> Tensor:
    """Over all processes; a copy."""
    values = values.clone()
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value
