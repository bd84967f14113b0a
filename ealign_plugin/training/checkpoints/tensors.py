"""Tensors of a checkpoint, whole or sharded, to and from disk."""

from __future__ import annotations

import errno
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ealign_plugin.distributed import all_gather_object, rank, run_on_all_ranks
from ealign_plugin.errors import UserError
from ealign_plugin.files import atomic_path, cannot_write
from ealign_plugin.training.checkpoints.manifest import SHARDS, file_rows
from ealign_plugin.training.torch_interfaces import (
    is_sharded,
    load_shards,
    save_shards,
    shards_of_rank,
    whole_tensor,
)


def load_weights(path: Path, model: nn.Module) -> None:
    """Put a checkpoint's weights into the model, which may be sharded. Collective.

    Raises:
        UserError: they belong to another model, or the file cannot be read.
    """
    if any(is_sharded(parameter) for parameter in model.parameters()):
        load_tensors_into(trained_state(model), path.name, path.parent)
    else:
        ours: Any = model
        run_on_all_ranks(lambda: ours.load_checkpoint(path))


def load_tensors_into(tensors: dict[str, Tensor], name: str, folder: Path) -> None:
    """Fill tensors by name from a checkpoint. Collective.

    Args:
        tensors: Whole or sharded ones; their content is replaced.
        name: A safetensors file, or ``shards``.
        folder: The checkpoint's.

    Raises:
        UserError: the file cannot be read, lacks a name, or a shape differs.
    """
    if not tensors:
        return
    if name != SHARDS and not any(map(is_sharded, tensors.values())):
        run_on_all_ranks(lambda: _fill_from_file(tensors, folder / name))
        return
    # A file beside the wanted one does no harm: names are looked up among those of all files.
    try:
        load_shards(tensors, folder / SHARDS if name == SHARDS else folder)
    except OSError as error:
        raise UserError(
            f"{folder / name}: it does not fit the model ({error}); use another checkpoint"
        ) from None


def _fill_from_file(tensors: Mapping[str, Tensor], path: Path) -> None:
    try:
        with safe_open(path, framework="pt") as file:
            for name, tensor in tensors.items():
                saved = file.get_tensor(name)
                if saved.shape != tensor.shape:
                    raise UserError(f"{path}: {name} is {list(saved.shape)}, {list(tensor.shape)} expected")
                tensor.copy_(saved)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: it cannot be read ({error}); use another checkpoint") from None


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """The weights that a checkpoint holds: ``model.trainable_state()``, or all of a foreign model."""
    ours: Any = model
    return ours.trainable_state() if hasattr(model, "trainable_state") else model.state_dict()


def whole_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All of each tensor, sharded or not. Collective.

    Returns:
        In the first process the tensors on the CPU, in others nothing.
    """
    whole = {}
    for name, tensor in tensors.items():
        full = whole_tensor(tensor)
        if rank() == 0:
            whole[name] = full.detach().cpu().contiguous()
    return whole


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file and have the disk keep it.

    Raises:
        UserError: it cannot be written.
    """
    with atomic_path(path) as part:
        try:
            save_file(dict(tensors), part, metadata=metadata)
        except SafetensorError as error:
            raise OSError(errno.EIO, str(error)) from None
        sync_to_disk(part)


def write_shards(part: Path, tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Any]]:
    """Write the optimiser's tensors, each process its parts, into ``shards`` of a checkpoint. Collective.

    Returns:
        The rows of these files for the manifest.

    Raises:
        UserError: a process does not see the folder, or cannot write.
    """
    folder = part / SHARDS

    def check_folder() -> None:
        if not part.is_dir():
            raise UserError(
                f"{part}: process {rank()} on {platform.node()} does not see it; set run.output_dir to "
                "a folder that all machines share"
            )

    def rows() -> dict[str, dict[str, Any]]:
        try:
            if rank() == 0:
                sync_to_disk(folder)
            return file_rows(part, [f"{SHARDS}/{path.name}" for path in shards_of_rank(folder, rank())])
        except OSError as error:
            raise cannot_write(folder, error) from None

    run_on_all_ranks(check_folder)
    try:
        save_shards(tensors, folder)
    except OSError as error:
        raise cannot_write(folder, error) from None
    of_ranks = all_gather_object(run_on_all_ranks(rows))
    return {name: row for of_rank in of_ranks for name, row in of_rank.items()}


def sync_to_disk(path: Path) -> None:
    """Have the disk keep a file's content, or a folder's names."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
