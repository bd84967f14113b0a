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

from ealign_plugin.errors import UserError

T = TypeVar("T")

RENDEZVOUS = ("MASTER_ADDR", "MASTER_PORT")


class RankInfo(NamedTuple):
    """Which of how many processes this one is.

    Args:
        rank: Counted from 0 over all machines.
        world_size: So many processes there are.
        local_rank: Counted from 0 within this machine.
    """

    rank: int
    world_size: int
    local_rank: int


def find_rank_info(env: Mapping[str, str]) -> RankInfo | None:
    """Read the environment variables of torchrun, else those of Slurm.

    Returns:
        None for a process that was started alone.

    Raises:
        UserError: some of the variables are missing or not numbers.
    """
    if "RANK" in env or "WORLD_SIZE" in env:
        info = RankInfo(*(read_whole_number(env, key) for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
    elif read_whole_number(env, "SLURM_NTASKS", default="1") > 1 and "SLURM_PROCID" in env:
        info = RankInfo(
            *(read_whole_number(env, key) for key in ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"))
        )
    else:
        return None
    missing = [key for key in RENDEZVOUS if key not in env]
    if missing:
        raise UserError(
            f"environment: {' and '.join(missing)} not set, expected the address of the first process; "
            "start with `python -m torch.distributed.run`, or export them in the job script"
        )
    return info


def read_whole_number(env: Mapping[str, str], key: str, default: str | None = None) -> int:
    """An environment variable that holds a whole number of 0 or more.

    Raises:
        UserError: it is something else, or missing and there is no default.
    """
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


def join(
    device: str,
    *,
    url: str = "env://",
    timeout: timedelta = timedelta(minutes=30),
    env: Mapping[str, str] = os.environ,
) -> RankInfo | None:
    """Set up the process group if this process is one of several; make its CUDA device the current one.

    Args:
        device: ``cpu`` (gloo) or ``cuda`` (nccl).
        url: Where the processes meet, as of ``torch.distributed.init_process_group``.
        timeout: For which processes wait for another; long enough for the first one to make or download data.
        env: The environment variables.

    Returns:
        Which process this is; None for one that was started alone.

    Raises:
        UserError: variables are missing or wrong, there are fewer CUDA devices than processes, or the
            processes do not reach each other.
    """
    info = find_rank_info(env)
    if info is None:
        return None
    if device == "cuda":
        if info.local_rank >= torch.cuda.device_count():
            raise UserError(
                f"LOCAL_RANK {info.local_rank}: torch finds {torch.cuda.device_count()} CUDA devices here; "
                "start that many processes a machine (--nproc-per-node)"
            )
        torch.cuda.set_device(info.local_rank)
    try:
        dist.init_process_group(
            backend="nccl" if device == "cuda" else "gloo",
            init_method=url,
            world_size=info.world_size,
            rank=info.rank,
            timeout=timeout,
        )
    except RuntimeError as error:
        if "connectFullMesh" not in str(error):
            raise
        raise UserError(
            f"processes: rank {info.rank} cannot reach the others ({str(error).splitlines()[0][:200]}); "
            "gloo takes the address that this machine's name leads to: name the network interface by the "
            "environment variable GLOO_SOCKET_IFNAME on each machine, e.g. eth0"
        ) from None
    return info


def leave() -> None:
    """Undo `join`."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """The number of this process, counted from 0; 0 where it is alone."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def all_gather_object(value: Any) -> list[Any]:
    """The values that all processes pass, in order of rank, in every process; Python objects. Collective."""
    values: list[Any] = [value] * world_size()
    if len(values) > 1:
        dist.all_gather_object(values, value)
    return values


def run_on_all_ranks(work: Callable[[], T]) -> T:
    """Call ``work`` in every process; where it fails in one, all raise, so that none waits for another.

    Collective.

    Raises:
        UserError: with the message of another process's failure; this process's own is raised as it is.
    """
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
    """Call ``work`` in the first process only and return its result in all. Collective.

    Raises:
        UserError: as of `run_on_all_ranks`.
    """
    result = run_on_all_ranks(lambda: work() if rank() == 0 else None)
    return all_gather_object(result)[0]
