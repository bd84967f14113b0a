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

    with whole(model) as plain:
        plain.generate(samples)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ealign_plugin.errors import UserError

KINDS = ("ddp", "fsdp")
AMP = {"false": None, "true": torch.bfloat16, "bf16": torch.bfloat16, "fp16": torch.float16}


# Several processes


def wrap(
    model: nn.Module, kind: str, device: torch.device, *, param_dtype: torch.dtype | None = None
) -> nn.Module:
    """The model on its device, with the first process's weights; alone, no more than that.

    ::

        ddp    every process holds the model; gradients are averaged while the backward pass runs
        fsdp   every process holds 1 / n of each weight, gradient and optimiser state (FSDP2, arXiv
               2304.11277). The members of each outermost ModuleList (layers of the language model, of the
               image encoder, of the Q-Former) are gathered one after the other, the rest for the whole step

    Under ``fsdp`` the model stays the same object and parameters keep their names; they become DTensors. It
    is moved and sharded layer by layer, so that a device never holds all of it. Frozen parameters are sharded
    too, whatever their type; trained ones must share one type, which `NewsModel.set_up` sees to.

    Args:
        model: On the CPU or on ``device``; parts are frozen already.
        kind: ``ddp`` or ``fsdp``; ``run.parallel``.
        device: Of this process; for CUDA the current device.
        param_dtype: Of ``fsdp``: compute in this type and gather weights in it; gradients are still summed
            in float32. None: the weights' own types.

    Raises:
        UserError: an unknown kind, or a model or a torch that cannot be sharded.
    """
    if kind not in KINDS:
        raise UserError(f"run.parallel: {kind!r} found; 'ddp' or 'fsdp' expected")
    if not dist.is_initialized():
        return model.to(device)
    if kind == "ddp":
        devices = [torch.cuda.current_device()] if device.type == "cuda" else None
        return DistributedDataParallel(model.to(device), device_ids=devices)
    return _shard(model, device, param_dtype)


def _shard(model: nn.Module, device: torch.device, param_dtype: torch.dtype | None) -> nn.Module:
    try:
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
        from torch.distributed.tensor import DTensor
    except ImportError:
        raise UserError(
            f"run.parallel: 'fsdp' found, which needs torch 2.6 or later, here is {torch.__version__}; "
            "'ddp' expected"
        ) from None
    # Layers are gathered anew in each forward of theirs, which takes part of every process.
    batching, most = getattr(model, "batching", None), getattr(model, "max_tokens", None)
    if batching == "groups" or most is not None:
        raise UserError(
            f"run.parallel: 'fsdp' found beside model.batching {batching!r} and model.max_tokens {most}, by "
            "which each process runs another number of forwards a step; 'packed' (an encoder-decoder: "
            "'padded') and null expected, or 'ddp'"
        )
    mesh = dist.init_device_mesh(device.type, (dist.get_world_size(),))
    policy = MixedPrecisionPolicy(param_dtype, torch.float32 if param_dtype else None)
    for module in (*_blocks(model), model):
        module.to(device)
        for tensor in (*module.parameters(), *module.buffers()):
            if not isinstance(tensor, DTensor):
                _send(tensor)
        fully_shard(module, mesh=mesh, mp_policy=policy)

    # FSDP takes the module that runs first for the root; in an evaluation that would be a layer.
    model.ealign_first_forward = lambda: None
    register_fsdp_forward_method(model, "ealign_first_forward")
    model.ealign_first_forward()
    del model.ealign_first_forward
    model.reshard()
    return model


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Members of the outermost ModuleLists."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from _blocks(child)


def _send(tensor: Tensor) -> None:
    """From the first process to all; LAVIS seeds each differently, and random weights would differ."""
    if isinstance(tensor, nn.Parameter) and not tensor.is_floating_point():
        raise UserError(
            "run.parallel: 'fsdp' found beside model.quantize, whose 4-bit weights cannot be sharded; 'ddp' "
            "expected"
        )
    dist.broadcast(tensor.detach(), src=0)


@contextmanager
def whole(model: nn.Module) -> Iterator[nn.Module]:
    """The model without its wrapping, every weight whole on every process; to be entered by all of them.

    Inside nothing is gathered, so processes may call what they like (``score``, ``generate``, parts of the
    model) as often as they like: evaluation splits differ in size, answers in length. The price: under
    ``fsdp`` a device holds all weights, in ``param_dtype`` if one was given (28 GB for 7B in float32, 14 in
    bfloat16), though no gradients and no states of the optimiser. Taking the ``state_dict`` inside gives
    DTensors and ends the effect: gather weights outside, by their ``full_tensor``.
    """
    shards = [module for module in model.modules() if hasattr(module, "set_reshard_after_forward")]
    for module in shards:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    # By this mark transformers' generate waits for the other processes at every token.
    marked = [module for module in model.modules() if getattr(module, "_is_fsdp_managed_module", False)]
    for module in marked:
        module._is_fsdp_managed_module = False
    try:
        yield model.module if isinstance(model, DistributedDataParallel) else model
    finally:
        for module in marked:
            module._is_fsdp_managed_module = True
        for module in shards:
            # The root's weights are needed again as soon as the backward pass begins.
            module.set_reshard_after_forward(module is not model, recurse=False)
            module.reshard()


# A step


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
        with nullcontext() if last else _apart(model):
            with precision.autocast():
                output = loss_of(batch)
            loss = output["loss"]
            weight = torch.as_tensor(output.get("weight", 1.0), dtype=torch.float32, device=loss.device)
            bad = ~torch.isfinite(loss.detach())
            found = torch.stack([weight, bad.float(), torch.full_like(weight, stop)])
            tally = tally + found
            if number == 0 or last:
                total = _sum(tally)
            if number == 0:  # losses stay of their size when they are weighed, so that fp16 holds them
                unit = total[0] / processes
            precision.scaler.scale(loss if alone else loss * (weight / unit)).backward()
        outputs.append({name: _detached(value) for name, value in output.items()})
    if len(batches) > 1:
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        here = [gradient.to_local() if hasattr(gradient, "to_local") else gradient for gradient in gradients]
        torch._foreach_mul_(here, unit * processes / total[0])
    weights, bads, stops = total.tolist()
    return Step(outputs, weights, bads > 0, stops > 0)


def _apart(model: nn.Module) -> AbstractContextManager[None]:
    """Gradients stay in this process."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()


def _sum(values: Tensor) -> Tensor:
    """Over all processes; a copy."""
    values = values.clone()
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


# Precision


class Precision:
    """Mixed precision: the types that forward passes compute in, and what that takes in the step.

    Args:
        amp: ``run.amp``: false; ``bf16`` or true; ``fp16``, whose small gradients are kept from vanishing by
            a scale that is found on the way (arXiv 1710.03740).
        device: Of the model.

    Raises:
        UserError: another value.
    """

    def __init__(self, amp: bool | str | None, device: torch.device) -> None:
        name = str(amp or False).lower()
        if name not in AMP:
            raise UserError(f"run.amp: {amp!r} found; false, true, 'bf16' or 'fp16' expected")
        self.device, self.dtype = device, AMP[name]
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)

    def autocast(self) -> AbstractContextManager[None]:
        """Around each forward pass."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None)

    def step(
        self, optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter], clip: float = 0.0
    ) -> Stepped:
        """Clip and step; all processes together.

        Args:
            optimizer: Of the parameters.
            parameters: Whose gradients are clipped.
            clip: Largest norm of the gradients; 0: no clipping.
        """
        before = self.scaler.get_scale()
        self.scaler.unscale_(optimizer)
        norm = None
        if clip:
            norm = nn.utils.clip_grad_norm_(parameters, clip)
            norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        self.scaler.step(optimizer)
        self.scaler.update()
        return Stepped(norm, self.scaler.get_scale() < before)

    def state_dict(self) -> dict[str, float]:
        """Numbers that JSON can hold; none but for fp16."""
        return self.scaler.state_dict()

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Of the same ``amp``; a run that goes on from another precision finds its scale anew."""
        if state and self.scaler.is_enabled():
            self.scaler.load_state_dict(dict(state))


class Stepped(NamedTuple):
    """``norm``: of the gradients before clipping (None: not clipped); ``skipped``: they overflowed fp16, the
    weights are as before."""

    norm: Tensor | None
    skipped: bool
