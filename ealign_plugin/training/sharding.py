"""A model on several processes: DistributedDataParallel and FSDP2."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ealign_plugin.errors import UserError
from ealign_plugin.training.torch_interfaces import is_sharded, shard_modules, weights_gathered

KINDS = ("ddp", "fsdp")


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
    # Layers are gathered anew in each forward of theirs, which takes part of every process.
    batching, most = getattr(model, "batching", None), getattr(model, "max_tokens", None)
    if batching == "groups" or most is not None:
        raise UserError(
            f"run.parallel: 'fsdp' found beside model.batching {batching!r} and model.max_tokens {most}, by "
            "which each process runs another number of forwards a step; 'packed' (an encoder-decoder: "
            "'padded') and null expected, or 'ddp'"
        )

    def prepare(module: nn.Module) -> None:
        module.to(device)
        for tensor in (*module.parameters(), *module.buffers()):
            if not is_sharded(tensor):
                _send(tensor)

    shard_modules([*_blocks(model), model], prepare, device, param_dtype)
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
def unsharded(model: nn.Module) -> Iterator[nn.Module]:
    """The model without its wrapping, every weight whole on every process; to be entered by all of them.

    Inside nothing is gathered, so processes may call what they like (``score``, ``generate``, parts of the
    model) as often as they like: evaluation splits differ in size, answers in length. The price: under
    ``fsdp`` a device holds all weights, in ``param_dtype`` if one was given (28 GB for 7B in float32, 14 in
    bfloat16), though no gradients and no states of the optimiser. Taking the ``state_dict`` inside gives
    DTensors and ends the effect: gather weights outside, by their ``full_tensor``. Calls of transformers'
    ``generate`` say ``synced_gpus=False``, else it would wait for the other processes at every token.
    """
    with weights_gathered(model):
        yield model.module if isinstance(model, DistributedDataParallel) else model
