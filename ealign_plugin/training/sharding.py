"""A model on several processes: DistributedDataParallel and FSDP2."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ealign_plugin.errors import UserError

KINDS = ("ddp", "fsdp")


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
def unsharded(model: nn.Module) -> Iterator[nn.Module]:
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
