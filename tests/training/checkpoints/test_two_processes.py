"""Checkpoints of several processes, sharded or not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ealign_plugin.errors import UserError
from ealign_plugin.training.checkpoints.store import CheckpointStore, find_checkpoint
from tests.training.checkpoints.saving import (
    Net,
    assert_same,
    everything,
    make,
    names,
    save,
    train,
)


def _processes(work, folder: Path) -> None:
    """``work(rank, store)`` in two processes of one gloo group."""
    torch.multiprocessing.spawn(_process, (work, folder), nprocs=2)


def _process(rank: int, work, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/{work.__name__}", rank=rank, world_size=2)
    work(rank, CheckpointStore(folder / "checkpoints", keep_last=100))
    dist.barrier()
    # At the end of the interpreter gloo's threads may still hold tensors, and abort.
    os._exit(0)


def _fsdp(model: nn.Module) -> nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (2,))
    for part in (*model.children(), model):
        fully_shard(part, mesh=mesh)
    return model


def _save_and_resume(rank: int, store: CheckpointStore) -> None:
    """Under DDP (iteration 3) and FSDP, its optimiser whole (5) or in parts (6)."""
    for iters, sharded, fsdp in ((3, False, False), (5, False, True), (6, True, True)):
        wrap = _fsdp if fsdp else (lambda model: model)
        model, optimizer = make(wrap=wrap)
        called = model if fsdp else DistributedDataParallel(model, find_unused_parameters=True)
        train(called, optimizer, range(iters), rank)
        saved = save(store, iters, parts=(model, optimizer), sharded=sharded, per_rank={"rank": rank})
        assert (saved.iters, saved.manifest["world_size"]) == (iters, 2)
        state = everything(model, optimizer)
        if rank == 0:
            torch.save(state, store.folder.parent / f"{iters}.pt")
        train(called, optimizer, range(iters, iters + 2), rank)

        again, its_optimizer = make(1, wrap)
        _, ranks = store.load(saved, again, its_optimizer)
        assert ranks == [{"rank": 0}, {"rank": 1}]
        assert_same(everything(again, its_optimizer), state)
        called = again if fsdp else DistributedDataParallel(again, find_unused_parameters=True)
        train(called, its_optimizer, range(iters, iters + 2), rank)
        assert_same(everything(again, its_optimizer), everything(model, optimizer))


def _load(rank: int, store: CheckpointStore) -> None:
    """What one process saved, into FSDP and DDP."""
    state = torch.load(store.folder.parent / "1.pt")
    for iters in (1, 2):
        saved = find_checkpoint(store.folder / f"iter_{iters:06d}")
        for wrap in (_fsdp, lambda model: model):
            store.load(saved, *(parts := make(1, wrap)))
            assert_same(everything(*parts), state)


def _fail(rank: int, store: CheckpointStore) -> None:
    """One process cannot write: both say so, and nothing is left of it."""
    model, optimizer = make(wrap=_fsdp)
    train(model, optimizer, range(1), rank)
    for sharded, failing in ((False, 0), (True, 0), (True, 1)):
        with pytest.MonkeyPatch.context() as patch:
            if rank == failing:
                patch.setattr(os, "fsync", lambda number: os.write(os.open("/dev/full", os.O_WRONLY), b"x"))
            with pytest.raises(UserError, match="checkpoint of iteration 9: .*No space left on device"):
                save(store, 9, parts=(model, optimizer), sharded=sharded)
        dist.barrier()
        assert not (store.folder.exists() and names(store))


@pytest.mark.slow
def test_two_processes_save_what_two_or_one_go_on_from(tmp_path):
    _processes(_save_and_resume, tmp_path)
    store = CheckpointStore(tmp_path / "checkpoints")
    for iters in (3, 5, 6):
        saved = find_checkpoint(store.folder / f"iter_{iters:06d}")
        store.load(saved, *(parts := make(1)))
        assert_same(everything(*parts), torch.load(tmp_path / f"{iters}.pt"))
        whole = Net()
        whole.load_checkpoint(saved.weights)
    assert store.newest().iters == 6


@pytest.mark.slow
def test_one_process_saves_what_two_go_on_from(tmp_path):
    model, optimizer = make()
    train(model, optimizer, range(2))
    store = CheckpointStore(tmp_path / "checkpoints", keep_last=2)
    for iters, sharded in ((1, False), (2, True)):
        save(store, iters, parts=(model, optimizer), sharded=sharded)
    torch.save(everything(model, optimizer), tmp_path / "1.pt")
    _processes(_load, tmp_path)


@pytest.mark.slow
def test_when_one_of_two_processes_cannot_write_both_say_so(tmp_path):
    _processes(_fail, tmp_path)
