"""Two processes that form a group, for tests of what they compute together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

Pair = Callable[..., list[Any]]


@pytest.fixture(scope="session")
def process_pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """``process_pair(function, ...)``: what it returns in each of two processes, which form a group."""
    meeting = tmp_path_factory.mktemp("process_pair") / "meeting"
    pools = [
        ProcessPoolExecutor(1, get_context("spawn"), initializer=meet, initargs=(rank, meeting))
        for rank in range(2)
    ]

    def run(function: Callable[..., Any], *args: Any, **options: Any) -> list[Any]:
        return [one.result(150) for one in [pool.submit(function, *args, **options) for pool in pools]]

    run(dist.get_rank)
    yield run
    for pool in pools:
        pool.shutdown()


def meet(rank: int, meeting: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=2, timeout=timedelta(seconds=100)
    )
