"""One process or many: the process group, with gloo or nccl by device.

LAVIS's init_distributed_mode forces nccl and ``torch.cuda.set_device``, replaces ``print`` and waits a year.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from omegaconf import DictConfig

from ealign_plugin.errors import UserError

T = TypeVar("T")


RENDEZVOUS = ("MASTER_ADDR", "MASTER_PORT")


class RankInfo(NamedTuple):
    """This process among its fellows, counted from 0; ``local_rank`` is within the machine."""

    rank: int
    world_size: int
    local_rank: int


def find_rank_info(env: Mapping[str, str]) -> RankInfo | None:
    """From torchrun's variables, else from Slurm's; None for a process alone.

    Raises:
        UserError: some of the variables are missing or not numbers.
    """
    if "RANK" in env or "WORLD_SIZE" in env:
        place = RankInfo(*(number(env, key) for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
    elif number(env, "SLURM_NTASKS", default="1") > 1 and "SLURM_PROCID" in env:
        place = RankInfo(*(number(env, key) for key in ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")))
    else:
        return None
    missing = [key for key in RENDEZVOUS if key not in env]
    if missing:
        raise UserError(
            f"environment: {' and '.join(missing)} not set, expected the address of the first process; "
            "start with `python -m torch.distributed.run`, or export them in the job script"
        )
    return place


def number(env: Mapping[str, str], key: str, default: str | None = None) -> int:
    value = env.get(key, default)
    if value is None or not value.isdecimal():
        raise UserError(
            f"environment: {key} is {value!r}, expected a whole number; start with `python -m "
            "torch.distributed.run`, or unset RANK and WORLD_SIZE for a single process"
        )
    return int(value)


def choose_device(device: str) -> str:
    """'auto' -> 'cuda' where torch finds one, else 'cpu'.

    Raises:
        UserError: 'cuda' without CUDA.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            f"run.device: cuda, but torch {torch.__version__} finds no CUDA device; "
            "set run.device to auto or cpu"
        )
    return device


def join(run_cfg: DictConfig, env: Mapping[str, str] = os.environ) -> None:
    """Set up the process group if this process is one of several.

    Reads ``run_cfg.device`` ('cpu' or 'cuda'), ``dist_url`` and ``dist_timeout_minutes``. Writes ``rank``,
    ``world_size``, ``gpu`` (number of the CUDA device, None on CPU) and ``distributed``, which is where
    LAVIS's runners look.
    """
    place = find_rank_info(env)
    cuda = run_cfg.device == "cuda"
    run_cfg.distributed = place is not None
    run_cfg.rank, run_cfg.world_size = (place.rank, place.world_size) if place else (0, 1)
    run_cfg.gpu = (place.local_rank if place else 0) if cuda else None
    if place is None:
        return
    if cuda:
        if place.local_rank >= torch.cuda.device_count():
            raise UserError(
                f"LOCAL_RANK {place.local_rank}: torch finds {torch.cuda.device_count()} CUDA devices here; "
                "start that many processes a machine (--nproc-per-node)"
            )
        torch.cuda.set_device(place.local_rank)
    try:
        dist.init_process_group(
            backend="nccl" if cuda else "gloo",
            init_method=run_cfg.dist_url,
            world_size=place.world_size,
            rank=place.rank,
            # Long enough for the first process to make or download data while the others wait for it.
            timeout=timedelta(minutes=float(run_cfg.dist_timeout_minutes)),
        )
    except RuntimeError as error:
        if "connectFullMesh" not in str(error):
            raise
        raise UserError(
            f"processes: rank {place.rank} cannot reach the others ({str(error).splitlines()[0][:200]}); "
            "gloo takes the address that this machine's name leads to: name the network interface by the "
            "environment variable GLOO_SOCKET_IFNAME on each machine, e.g. eth0"
        ) from None


def leave() -> None:
    """Undo `join`."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """Of this process; 0 where it is alone."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def all_gather_object(value: Any) -> list[Any]:
    """What each process passes, in order of rank, in every process."""
    values: list[Any] = [value] * world_size()
    if len(values) > 1:
        dist.all_gather_object(values, value)
    return values


def run_on_all_ranks(work: Callable[[], T]) -> T:
    """Work on every process; where it fails on one, all of them raise, so that none waits for another."""
    try:
        result, failure = work(), None
    except Exception as error:
        failure = error
    messages = all_gather_object(None if failure is None else str(failure) or type(failure).__name__)
    if failure is not None:
        raise failure
    for message in messages:
        if message is not None:
            raise UserError(message)
    return result


def run_on_first_rank(work: Callable[[], T]) -> T:
    """The result of the first process, the only one that works."""
    result = run_on_all_ranks(lambda: work() if rank() == 0 else None)
    return all_gather_object(result)[0]
