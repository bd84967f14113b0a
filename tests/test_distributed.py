"""One process or many, from the environment."""

import os
import socket
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from ealign_plugin.distributed import RankInfo, choose_device, find_rank_info, join, run_on_first_rank
from ealign_plugin.errors import UserError

ADDRESS = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}


@pytest.mark.parametrize(
    ("env", "place"),
    [
        ({}, None),
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", **ADDRESS}, RankInfo(3, 4, 1)),
        ({"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1", **ADDRESS}, RankInfo(5, 8, 1)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, None),  # an interactive shell of Slurm's
    ],
)
def test_place(env, place):
    assert find_rank_info(env) == place


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
    run_cfg = OmegaConf.create({"device": "cpu"})
    join(run_cfg, env={})
    assert dict(run_cfg) == {"device": "cpu", "distributed": False, "rank": 0, "world_size": 1, "gpu": None}
    assert run_on_first_rank(lambda: "value") == "value"


PROCESS = """
import torch, torch.distributed as dist
from omegaconf import OmegaConf
from ealign_plugin.distributed import run_on_first_rank, join, leave
run_cfg = OmegaConf.create({"device": "cpu", "dist_url": "env://", "dist_timeout_minutes": 1})
join(run_cfg)
total = torch.tensor([run_cfg.rank + 1])
dist.all_reduce(total)
told = run_on_first_rank(lambda: f"from {run_cfg.rank}")
print(dist.get_backend(), run_cfg.world_size, run_cfg.gpu, int(total), told)
leave()
"""


def test_two_processes_meet_over_gloo():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=120)[0].strip() for process in processes]
    assert outputs == ["gloo 2 None 3 from 0"] * 2
