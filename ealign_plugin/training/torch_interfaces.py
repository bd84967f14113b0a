"""Interfaces of torch that are young, unstable or undocumented: the only file that touches them.

Written for torch 2.6 to 2.13 (FSDP2: ``torch.distributed.fsdp.fully_shard``) and 2.9 to 2.13 (checkpoints in
parts: ``HuggingFaceStorageWriter``). tests/training/test_torch_interfaces.py fails where one of them moves:

    fully_shard, FSDPModule.unshard, reshard,
    set_reshard_after_forward                       documented since 2.6, still changing
    DTensor.full_tensor, to_local                   the class has moved between modules
    the module that runs first becomes the root     documented, but hardly a promise
    shard-00001-model-00001-of-00001.safetensors    undocumented; the first number is rank + 1
    CheckpointException.failures                    a property, of which the documentation says little
    torch._foreach_mul_                             private; torch's optimisers call it
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from torch import Tensor, nn

from ealign_plugin.errors import UserError

# Sharded models


def shard_modules(
    modules: Sequence[nn.Module],
    prepare: Callable[[nn.Module], None],
    device: torch.device,
    param_dtype: torch.dtype | None,
) -> None:
    """Shard modules over all processes, one after the other (FSDP2); the last one contains the others.

    Args:
        modules: Inner ones first.
        prepare: Called with each before it is sharded; what is in it and was sharded before is a DTensor.
        device: Of this process.
        param_dtype: Compute in this type and gather weights in it; gradients are summed in float32.

    Raises:
        UserError: this torch has no FSDP2.
    """
    try:
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
    except ImportError:
        raise UserError(
            f"run.parallel: 'fsdp' found, which needs torch 2.6 or later, here is {torch.__version__}; "
            "'ddp' expected"
        ) from None
    mesh = dist.init_device_mesh(device.type, (dist.get_world_size(),))
    policy = MixedPrecisionPolicy(param_dtype, torch.float32 if param_dtype else None)
    for module in modules:
        prepare(module)
        fully_shard(module, mesh=mesh, mp_policy=policy)

    # FSDP takes the module that runs first for the root; in an evaluation that would be a layer.
    root: Any = modules[-1]
    root.ealign_first_forward = lambda: None
    register_fsdp_forward_method(root, "ealign_first_forward")
    root.ealign_first_forward()
    del root.ealign_first_forward
    root.reshard()


@contextmanager
def weights_gathered(model: nn.Module) -> Iterator[None]:
    """Inside, a sharded model has whole weights in every process, and nothing is communicated. Collective.

    ``set_reshard_after_forward`` is FSDP2's documented switch for evaluations.
    """
    sharded: list[Any] = [m for m in model.modules() if hasattr(m, "set_reshard_after_forward")]
    for module in sharded:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        yield
    finally:
        for module in sharded:
            # The root's weights are needed again as soon as the backward pass begins.
            module.set_reshard_after_forward(module is not model, recurse=False)
            module.reshard()


# Sharded tensors


def is_sharded(tensor: Tensor) -> bool:
    """Whether it is a DTensor, of which this process holds a part."""
    return hasattr(tensor, "full_tensor")


def whole_tensor(tensor: Tensor) -> Tensor:
    """All of a tensor, sharded or not. Collective where it is sharded."""
    sharded: Any = tensor
    return sharded.full_tensor() if is_sharded(tensor) else tensor


def local_tensor(tensor: Tensor) -> Tensor:
    """This process's part of a tensor, sharded or not; it shares the memory."""
    sharded: Any = tensor
    return sharded.to_local() if is_sharded(tensor) else tensor


def multiply_in_place(tensors: Sequence[Tensor], factor: Tensor) -> None:
    """Multiply each by a scalar, on a GPU by few kernels."""
    torch._foreach_mul_(list(tensors), factor)


# Checkpoints in parts


def save_shards(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Write tensors, each process its parts, as safetensors files into one folder. Collective.

    Raises:
        UserError: this torch cannot.
        OSError: a process could not write; the message is one line.
    """
    checkpoint = _checkpoint_module()
    try:
        writer = checkpoint.HuggingFaceStorageWriter(str(folder), save_distributed=True)
        checkpoint.save(dict(tensors), storage_writer=writer)
    except checkpoint.CheckpointException as error:
        raise OSError(_cause(error)) from None


def load_shards(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Fill tensors by name from the safetensors files of a folder, parts or whole ones. Collective.

    Raises:
        UserError: this torch cannot.
        OSError: a name is missing, a shape differs, a file cannot be read; the message is one line.
    """
    checkpoint = _checkpoint_module()
    try:
        reader = checkpoint.HuggingFaceStorageReader(str(folder))
        checkpoint.load(dict(tensors), storage_reader=reader)
    except (checkpoint.CheckpointException, SafetensorError, OSError, ValueError, KeyError) as error:
        raise OSError(_cause(error)) from None


def shards_of_rank(folder: Path, rank: int) -> list[Path]:
    """The files that `save_shards` wrote in this process."""
    return sorted(folder.glob(f"shard-{rank + 1:05d}-*"))


def _checkpoint_module() -> Any:
    import torch.distributed.checkpoint as checkpoint  # takes a second

    if not hasattr(checkpoint, "HuggingFaceStorageWriter"):
        raise UserError(
            f"torch {torch.__version__}: too old for sharded checkpoints; update it (2.13 will do)"
        )
    return checkpoint


def _cause(error: BaseException) -> str:
    """One line; of an exception that stands for those of several processes the first."""
    failures = getattr(error, "failures", None)
    if failures:
        error = next(iter(failures.values()))[0]
    return str(getattr(error, "strerror", None) or error or type(error).__name__).split("\n")[0][:200]
