"""Tensors of a checkpoint, whole or sharded, to and from disk."""

from __future__ import annotations

import errno
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ealign_plugin.distributed import all_gather_object, rank, run_on_all_ranks
from ealign_plugin.errors import UserError
from ealign_plugin.files import atomic_path, cannot_write
from ealign_plugin.training.checkpoints.manifest import SHARDS, file_rows


def load_weights(path: Path, model: nn.Module) -> None:
    """Put a checkpoint's weights into the model, which may be sharded. Collective.

    Raises:
        UserError: they belong to another model, or the file cannot be read.
    """
    if any(is_sharded(parameter) for parameter in model.parameters()):
        load_tensors_into(trained_state(model), path.name, path.parent)
    else:
        run_on_all_ranks(lambda: model.load_checkpoint(path))


def load_tensors_into(tensors: dict[str, Tensor], name: str, folder: Path) -> None:
    """Read tensors from a file, or from shards, in place. Collective."""
    if not tensors:
        return
    if name != SHARDS and not any(map(is_sharded, tensors.values())):
        run_on_all_ranks(lambda: _fill_from_file(tensors, folder / name))
        return
    checkpoint = distributed_checkpoint()
    # A file beside the wanted one does no harm: names are looked up among those of all files.
    place = folder / SHARDS if name == SHARDS else folder
    try:
        reader = checkpoint.HuggingFaceStorageReader(str(place))
        checkpoint.load(tensors, storage_reader=reader)
    except (checkpoint.CheckpointException, SafetensorError, OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{folder / name}: it does not fit the model ({_cause(error)}); use another checkpoint"
        ) from None


def _fill_from_file(tensors: Mapping[str, Tensor], path: Path) -> None:
    try:
        with safe_open(path, framework="pt") as file:
            for name, tensor in tensors.items():
                found = file.get_tensor(name)
                if found.shape != tensor.shape:
                    raise UserError(f"{path}: {name} is {list(found.shape)}, {list(tensor.shape)} expected")
                tensor.copy_(found)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: it cannot be read ({error}); use another checkpoint") from None


# Writing


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    return model.trainable_state() if hasattr(model, "trainable_state") else model.state_dict()


def whole_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the first process whole tensors on the CPU, on others nothing. Collective."""
    found = {}
    for name, tensor in tensors.items():
        full = tensor.full_tensor() if is_sharded(tensor) else tensor
        if rank() == 0:
            found[name] = full.detach().cpu().contiguous()
    return found


def is_sharded(tensor: Tensor) -> bool:
    return hasattr(tensor, "full_tensor")  # DTensor, which has moved between modules of torch


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    with atomic_path(path) as part:
        try:
            save_file(dict(tensors), part, metadata=metadata)
        except SafetensorError as error:
            raise OSError(errno.EIO, str(error)) from None
        sync_to_disk(part)


def write_shards(part: Path, tensors: dict[str, Tensor]) -> dict[str, dict[str, Any]]:
    """Each process its part; returns the rows for the manifest. Collective."""
    checkpoint, folder = distributed_checkpoint(), part / SHARDS

    def look() -> None:
        if not part.is_dir():
            raise UserError(
                f"{part}: process {rank()} on {platform.node()} does not see it; set run.output_dir to "
                "a folder that all machines share"
            )

    run_on_all_ranks(look)
    try:
        writer = checkpoint.HuggingFaceStorageWriter(str(folder), save_distributed=True)
        checkpoint.save(tensors, storage_writer=writer)
    except checkpoint.CheckpointException as error:
        raise UserError(
            f"{folder}: it cannot be written ({_cause(error)}); make room or choose another folder"
        ) from None

    def rows() -> dict[str, dict[str, Any]]:
        try:
            if rank() == 0:
                sync_to_disk(folder)
            own = sorted(path.name for path in folder.glob(f"shard-{rank() + 1:05d}-*"))
            return file_rows(part, [f"{SHARDS}/{name}" for name in own])
        except OSError as error:
            raise cannot_write(folder, error) from None

    return {name: row for own in all_gather_object(run_on_all_ranks(rows)) for name, row in own.items()}


def distributed_checkpoint() -> Any:
    import torch.distributed.checkpoint as checkpoint  # takes a second

    if not hasattr(checkpoint, "HuggingFaceStorageWriter"):
        raise UserError(
            f"torch {torch.__version__}: too old for sharded checkpoints; update it (2.13 will do)"
        )
    return checkpoint


def sync_to_disk(path: Path) -> None:
    """Have the disk keep a file's content, or a folder's names."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _cause(error: BaseException) -> str:
    """One line; of an exception that stands for those of several processes the first."""
    failures = getattr(error, "failures", None)
    if failures:
        error = next(iter(failures.values()))[0]
    return str(getattr(error, "strerror", None) or error or type(error).__name__).split("\n")[0][:200]
