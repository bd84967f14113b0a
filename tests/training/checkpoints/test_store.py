"""Checkpoints: what comes back is what was saved, and whatever fails, the last good one is found."""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from ealign_plugin import files
from ealign_plugin.errors import UserError
from ealign_plugin.training.checkpoints import tensors
from ealign_plugin.training.checkpoints.store import CheckpointStore
from tests.training.checkpoints.saving import (
    Net,
    assert_same,
    everything,
    make,
    names,
    save,
    train,
)


@pytest.mark.parametrize("sharded", [False, True])
def test_a_training_goes_on_bit_for_bit(store, sharded):
    model, optimizer = make()
    train(model, optimizer, range(3))
    saved = save(store, 3, parts=(model, optimizer), sharded=sharded)
    train(model, optimizer, range(3, 6))

    other, its_optimizer = make(seed=7)
    values, ranks = store.load(saved, other, its_optimizer)
    train(other, its_optimizer, range(3, 6))
    assert_same(everything(model, optimizer), everything(other, its_optimizer))
    assert its_optimizer.param_groups[0]["betas"] == (0.8, 0.98)
    assert (values, ranks) == ({"best": None}, [{"stream": "s"}])


def test_a_parameter_without_a_gradient_so_far_keeps_having_no_state(store):
    model, optimizer = make()
    train(model, optimizer, range(2))
    before = everything(model, optimizer)
    saved = save(store, 2, parts=(model, optimizer))
    assert_same(before, everything(model, optimizer))  # saving changes nothing
    store.load(saved, *(again := make(1)))
    assert again[0].unused.weight not in again[1].state
    assert again[0].first.weight in again[1].state


def test_an_optimizer_before_its_first_step_is_saved_too(store):
    saved = save(store, 0)
    store.load(saved, *(again := make(1)))
    assert_same(everything(*make()), everything(*again))


def test_the_trained_weights_are_one_safetensors_file_with_the_recipe(store):
    saved = save(store, 400, metric=0.5)
    with safe_open(saved.weights, framework="pt") as file:
        assert file.metadata() == {"arch": "net"}
        assert set(file.keys()) == set(Net().trainable_state())
    assert saved.folder.name == "iter_000400" and (saved.iters, saved.metric) == (400, 0.5)


def test_the_manifest_names_versions_and_every_other_file(store):
    manifest = save(store, 1, manifest={"config": {"run": {"seed": 1}}, "data": "abc"}).manifest
    assert manifest["versions"]["torch"] == torch.__version__
    assert set(manifest["files"]) == {"weights.safetensors", "optimizer.safetensors", "state.json"}
    assert (manifest["data"], manifest["config"], manifest["world_size"]) == ("abc", {"run": {"seed": 1}}, 1)


def test_further_files_lie_beside_the_weights_and_in_the_manifest(store):
    saved = save(store, 1, files={"captioning.json": b'{"beams": 5}'})
    assert (saved.folder / "captioning.json").read_bytes() == b'{"beams": 5}'
    assert saved.manifest["files"]["captioning.json"]["bytes"] == 12
    (saved.folder / "captioning.json").write_bytes(b'{"beams": 6}')
    with pytest.raises(UserError, match="captioning.json: its SHA-256"):
        saved.check()


@pytest.mark.parametrize("name", ["weights.safetensors", "../a.json", "a/b.json", "", "manifest.json"])
def test_further_files_cannot_replace_a_checkpoints_own(store, name):
    with pytest.raises(ValueError, match="cannot be the name of a further file"):
        save(store, 1, files={name: b""})
    assert store.newest() is None


def test_files_are_replaced_and_whatever_fails_on_the_way_the_checkpoint_is_whole(store, monkeypatch):
    saved = save(store, 1, metric=0.5, files={"captioning.json": b"{}", "other.json": b"1"})
    writes = {"left": 0}
    write = files.atomic_write

    def failing(path, content):
        writes["left"] -= 1
        if writes["left"] < 0:
            raise UserError(f"{path}: it cannot be written")
        write(path, content)

    for where in ("store", "manifest"):
        monkeypatch.setattr(f"ealign_plugin.training.checkpoints.{where}.atomic_write", failing)
    for count in range(3):
        writes["left"] = count
        with pytest.raises(UserError, match="cannot be written"):
            store.replace_files(store.best(), {"captioning.json": b'{"threshold": 0.7}'})
        assert store.best().folder == saved.folder  # which looks at every file that its manifest names
    writes["left"] = 3
    store.replace_files(store.best(), {"captioning.json": b'{"threshold": 0.7}'})
    after = store.best()
    assert (after.folder / "captioning.json").read_bytes() == b'{"threshold": 0.7}'
    assert set(after.manifest["files"]) == set(saved.manifest["files"])
    assert {**after.manifest, "files": 0} == {**saved.manifest, "files": 0}
    with pytest.raises(ValueError, match="cannot be the name of a further file"):
        store.replace_files(after, {"weights.safetensors": b""})


def test_all_files_can_be_read_by_whom_the_umask_lets(store):
    folder = save(store, 1).folder
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1


# Failures


def test_whatever_fails_the_last_good_one_is_intact_and_found(store, monkeypatch):
    """A full disk at the n-th thing that is done to it, for every n."""
    first = save(store, 100, metric=0.1)
    state = {"left": -1}

    def failing(function):
        def call(*args, **kwargs):
            state["left"] -= 1
            if state["left"] == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return function(*args, **kwargs)

        return call

    for where, name in (
        *((os, name) for name in ("mkdir", "fsync", "rename", "replace", "symlink", "chmod")),
        *((tensors, "save_file"), (files, "open")),
    ):
        monkeypatch.setattr(where, name, failing(getattr(where, name, open)), raising=False)
    newest, outcomes, count = 100, [], 0
    while True:
        count += 1
        state["left"] = count
        try:
            save(store, 100 + count, metric=0.0)
        except UserError as error:
            assert "No space left on device" in str(error) and "make room" in str(error)
            outcomes.append("refused")
        else:
            newest = 100 + count
            outcomes.append("saved")
        if state["left"] > 0:  # so many things are not done any more
            break
        state["left"] = 0
        assert store.newest().iters == newest
        assert store.best().iters == first.iters
        assert not [name for name in names(store) if name.endswith(".part") and name.startswith("iter")]
    # Before the rename it is refused, after that it has been saved whatever happens to links and old ones.
    assert outcomes.count("refused") >= 10 and outcomes.count("saved") >= 3


FULL_DISK = """
import sys
from pathlib import Path
import torch
from torch import nn
from ealign_plugin.training.checkpoints.store import CheckpointStore
from ealign_plugin.errors import UserError

store = CheckpointStore(Path(sys.argv[1]) / "checkpoints")
model = nn.Linear(200, 200)  # 160 kB
optimizer = torch.optim.AdamW(model.parameters())
model(torch.ones(200)).sum().backward()
optimizer.step()
for iters in range(1, 9):
    Path(sys.argv[1], f"other{iters}").write_bytes(bytes(100_000))
    try:
        store.save(model, optimizer, iters=iters, metric=None, values={}, per_rank={}, manifest={})
    except UserError as error:
        print(error)
        break
newest = store.newest()
print(newest.iters == iters - 1 >= 1, sorted(path.name for path in store.folder.iterdir()))
"""


def test_a_disk_that_is_really_full(tmp_path):
    mount = f"mount -t tmpfs -o size=1700k none {tmp_path}"
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rm", *mount.split()]).returncode:
        pytest.skip("this machine does not let its users mount")
    script = f'{mount} && exec "$0" -c "$1" {tmp_path}'
    command = ["unshare", "-rm", "sh", "-c", script, sys.executable, FULL_DISK]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    lines = done.stdout.splitlines()
    assert "No space left on device" in lines[0] and "make room" in lines[0], done.stderr
    assert lines[1].startswith("True") and ".part" not in lines[1]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        UserError, match=r"checkpoint of iteration 1: .*file/checkpoints: it cannot be written"
    ):
        save(CheckpointStore(tmp_path / "file" / "checkpoints"), 1)


def _save_forever(folder: Path, sender) -> None:
    torch.set_num_threads(1)
    store, parts = CheckpointStore(folder), make()
    train(*parts, range(1))
    iters = store.newest().iters if folder.exists() else 0
    while True:
        iters += 1
        save(store, iters, metric=-float(iters), parts=parts)
        sender.send(iters)


def test_kill_9_always_leaves_a_whole_newest_checkpoint(store):
    generator, iters = random.Random(0), 0
    for _ in range(6):
        receiver, sender = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.get_context("fork").Process(
            target=_save_forever, args=(store.folder, sender), daemon=True
        )
        process.start()
        assert receiver.poll(20)
        time.sleep(generator.uniform(0, 0.05))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        while receiver.poll():
            iters = receiver.recv()
        assert store.newest().iters in (iters, iters + 1)
        assert store.best().iters == 1
    save(store, iters + 2)
    assert names(store) == {"iter_000001", f"iter_{iters + 2:06d}", "last", "best"}


# What is kept


def test_the_newest_and_the_best_are_kept(tmp_path):
    store = CheckpointStore(tmp_path, keep_last=2, keep_best=2)
    for iters, metric in enumerate((0.3, 0.9, None, 0.5, 0.9, 0.1, float("nan")), start=1):
        save(store, iters, metric)
    assert names(store) == {*(f"iter_00000{n}" for n in (2, 5, 6, 7)), "last", "best"}
    assert os.readlink(tmp_path / "last") == "iter_000007"
    assert os.readlink(tmp_path / "best") == "iter_000002"  # of equal ones the first
    assert (store.best().iters, store.newest().iters, store.newest().metric) == (2, 7, None)


def test_without_a_metric_there_is_no_best(store):
    save(store, 1)
    assert names(store) == {"iter_000001", "last"} and store.best() is None


def test_an_empty_run_has_no_checkpoint(store):
    assert store.newest() is None and store.best() is None


def test_what_a_killed_run_left_is_removed(store):
    save(store, 1)
    for name in ("iter_000002.part", "iter_000000.trash"):
        shutil.copytree(store.folder / "iter_000001", store.folder / name)
    assert store.newest().iters == 1
    save(store, 3)
    assert names(store) == {"iter_000003", "last"}


def test_a_run_that_went_back_to_an_older_checkpoint_goes_on_from_there(tmp_path):
    """Newest is what was written last, also where a stale one has done more iterations."""
    store = CheckpointStore(tmp_path, keep_last=3)
    for iters in (100, 200, 100):
        newest = save(store, iters)
    assert (newest.iters, newest.folder.name) == (100, "iter_000100-2")


@pytest.mark.parametrize("key", ["keep_last", "keep_best"])
def test_keeping_nothing_is_refused(tmp_path, key):
    with pytest.raises(UserError, match=f"run.{key}: 0 found; at least 1 expected"):
        CheckpointStore(tmp_path, **{key: 0})
