"""One process or many, from the environment."""

import os
import socket
import subprocess
import sys

import pytest

from ealign_plugin.distributed import (
    RankInfo,
    all_gather_object,
    choose_device,
    find_rank_info,
    join,
    rank,
    run_on_all_ranks,
    run_on_first_rank,
    world_size,
)
from ealign_plugin.errors import UserError

ADDRESS = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}


@pytest.mark.parametrize(
    ("env", "info"),
    [
        ({}, None),
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", **ADDRESS}, RankInfo(3, 4, 1)),
        ({"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1", **ADDRESS}, RankInfo(5, 8, 1)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, None),  # an interactive shell of Slurm's
    ],
)
def test_rank_info_is_read_from_the_environment(env, info):
    assert find_rank_info(env) == info


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"RANK": "0"}, "WORLD_SIZE is None, expected a whole number"),
        ({"RANK": "x", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "RANK is 'x'"),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "MASTER_ADDR and MASTER_PORT not set"),
    ],
)
def test_half_an_environment_is_one_line(env, message):
    with pytest.raises(UserError, match=message):
        find_rank_info(env)


def test_cuda_without_cuda_is_one_line(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert choose_device("auto") == "cpu"
    with pytest.raises(UserError, match="run.device: cuda, but torch .* finds no CUDA device"):
        choose_device("cuda")


def test_alone_needs_no_group():
    assert join("cpu", env={}) is None
    assert (rank(), world_size(), all_gather_object("value")) == (0, 1, ["value"])
    assert run_on_first_rank(lambda: "value") == "value"


def test_more_processes_than_cuda_devices_are_one_line(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    env = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", **ADDRESS}
    with pytest.raises(UserError, match="LOCAL_RANK 1: torch finds 1 CUDA devices here; .*nproc-per-node"):
        join("cuda", env=env)


def test_a_failure_alone_is_raised_as_it_is():
    def fail():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        run_on_all_ranks(fail)


PROCESS = """
import torch, torch.distributed as dist
from ealign_plugin.distributed import join, leave, rank, run_on_all_ranks, run_on_first_rank, world_size
from ealign_plugin.errors import UserError
info = join("cpu")
total = torch.tensor([info.rank + 1])
dist.all_reduce(total)
value = run_on_first_rank(lambda: f"from {rank()}")
try:
    run_on_all_ranks(lambda: 1 // rank())
except (UserError, ZeroDivisionError) as error:
    failure = type(error).__name__
print(dist.get_backend(), world_size(), info.rank == rank() == info.local_rank, int(total), value, failure)
leave()
print(world_size())
"""


def test_two_processes_meet_over_gloo():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS],
            env={**shared, "RANK": str(number), "LOCAL_RANK": str(number)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    outputs = [process.communicate(timeout=120)[0].strip() for process in processes]
    start = "gloo 2 True 3 from 0"
    assert outputs == [f"{start} ZeroDivisionError\n1", f"{start} UserError\n1"]
