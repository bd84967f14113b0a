"""Checkpoints: what comes back is what was saved, and whatever fails, the last good one is found."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ealign_plugin import files
from ealign_plugin.errors import UserError
from ealign_plugin.training.checkpoints import tensors
from ealign_plugin.training.checkpoints.manifest import Checkpoint, versions
from ealign_plugin.training.checkpoints.rng import pack_rng, unpack_rng
from ealign_plugin.training.checkpoints.same_config import check_config
from ealign_plugin.training.checkpoints.store import CheckpointStore, find_checkpoint, weights_of


class Net(nn.Module):
    """Two trained layers and a norm; one that never gets a gradient, one that is frozen."""

    recipe = {"arch": "net"}

    def __init__(self, width: int = 5) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(3, width), nn.LayerNorm(width)
        self.last, self.unused = nn.Linear(width, 1), nn.Linear(2, 2)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)

    def forward(self, x):
        return self.last(self.norm(self.first(x)).tanh())

    def trainable_state(self):
        return {name: value for name, value in self.state_dict().items() if not name.startswith("frozen")}

    def load_checkpoint(self, path):
        self.load_state_dict(load_file(path), strict=False)


def make(seed: int = 0, wrap=lambda model: model) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A model and its AdamW with groups of different rates and keys."""
    torch.manual_seed(seed)
    model = wrap(Net())
    parts = {
        "llm": {"lr": 0.01, "lr_scale": 0.1, "weight_decay": 0.05},
        "vectors": {"lr": 0.1, "lr_scale": 1.0, "weight_decay": 0.0},
    }
    groups = [{"name": name, "params": [], **values} for name, values in parts.items()]
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups[parameter.ndim < 2]["params"].append(parameter)
    return model, torch.optim.AdamW(groups, lr=0.1, betas=(0.8, 0.98), fused=True)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range, rank: int = 0) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(1000 * rank + step)
        x = torch.randn(4, 3, generator=generator)
        optimizer.zero_grad()
        (model(x) - x.sum(1, keepdim=True)).square().mean().backward()
        optimizer.step()


def everything(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict:
    """Weights and optimiser state by names, on the CPU and whole."""

    def full(value):
        return value.full_tensor() if hasattr(value, "full_tensor") else value

    names = {parameter: name for name, parameter in model.named_parameters()}
    found = {name: full(value).detach().clone() for name, value in model.trainable_state().items()}
    for parameter, state in optimizer.state.items():
        found |= {f"{names[parameter]}/{key}": full(value).clone() for key, value in state.items()}
    groups = [{**group, "params": [names[p] for p in group["params"]]} for group in optimizer.param_groups]
    return found | {"groups": groups}


def assert_same(one: dict, two: dict) -> None:
    """Bit for bit, of the same types."""
    assert one.keys() == two.keys()
    assert one["groups"] == two["groups"]
    for name in one.keys() - {"groups"}:
        assert one[name].dtype == two[name].dtype and torch.equal(one[name], two[name]), name


def save(store: CheckpointStore, iters: int, metric: float | None = None, parts=None, **more) -> Checkpoint:
    config = {"model": {"arch": "net"}}
    rest = {"values": {"best": metric}, "per_rank": {"stream": "s"}, "manifest": {"config": config}, **more}
    store.save(*(parts or make()), iters=iters, metric=metric, **rest)
    return store.newest()


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints")


def names(store: CheckpointStore) -> set[str]:
    return {path.name for path in store.folder.iterdir()}


# What comes back


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


def test_all_files_can_be_read_by_whom_the_umask_lets(store):
    folder = save(store, 1).folder
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1


def test_random_generators_go_on_where_they_stood():
    def draw():
        return torch.rand(3).tolist(), random.random(), random.gauss(0, 1), np.random.rand(3).tolist()

    random.gauss(0, 1)  # leaves a second draw behind, which is a part of the state
    packed = json.loads(json.dumps(pack_rng()))
    expected = draw()
    draw()
    unpack_rng(packed)
    assert draw() == expected


@pytest.mark.parametrize(
    "broken", [{}, {"torch": "AAAA"}, {"python": [3, [1], None]}, {"numpy": ["X", [], 0]}]
)
def test_random_states_that_are_none_are_refused(broken):
    with pytest.raises(UserError, match="random states cannot be read"):
        unpack_rng({**pack_rng(), **broken} if broken else {})


def test_a_checkpoint_of_another_model_is_refused(store):
    saved, model = save(store, 1), Net()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with pytest.raises(UserError, match="group 0 .* 3 parameters in the checkpoint, 8 now.*first.bias"):
        store.load(saved, model, torch.optim.AdamW(trained))
    matrices = [parameter for parameter in trained if parameter.ndim > 1]
    with pytest.raises(UserError, match="2 groups of the optimiser in the checkpoint, 1 now"):
        store.load(saved, model, torch.optim.AdamW(matrices))


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


def _save_forever(folder: Path, told) -> None:
    torch.set_num_threads(1)
    store, parts = CheckpointStore(folder), make()
    train(*parts, range(1))
    iters = store.newest().iters if folder.exists() else 0
    while True:
        iters += 1
        save(store, iters, metric=-float(iters), parts=parts)
        told.send(iters)


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


# Damage


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "damage", "told"),
    [
        ("weights.safetensors", lambda path: os.truncate(path, 100), "weights.safetensors: 100 bytes found"),
        ("optimizer.safetensors", _flip, "optimizer.safetensors: its SHA-256"),
        ("state.json", Path.unlink, "state.json: the file is missing"),
        ("manifest.json", Path.unlink, "manifest.json: it cannot be read .No such file"),
        ("manifest.json", lambda path: os.truncate(path, 100), "manifest.json: it is no JSON"),
        ("manifest.json", lambda path: path.write_text("{}"), "format None found, 1 expected"),
        ("manifest.json", lambda path: path.write_text('{"format": 1}'), "no manifest of a checkpoint"),
    ],
)
def test_a_damaged_newest_is_passed_over_with_a_warning(tmp_path, caplog, name, damage, told):
    store = CheckpointStore(tmp_path, keep_last=2)
    save(store, 1)
    damage(save(store, 2).folder / name)
    caplog.clear()
    assert store.newest().iters == 1
    assert re.search(told, caplog.text)
    with pytest.raises(UserError, match=told):
        find_checkpoint(tmp_path / "last")
    assert find_checkpoint(tmp_path).iters == 1
    assert save(store, 2).folder.name == "iter_000002-2"  # the damaged one is not written over


@pytest.mark.parametrize("name", ["../../secret", "/etc/hostname"])
def test_a_manifest_cannot_name_files_elsewhere(store, name):
    folder = save(store, 1).folder
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = {"bytes": 1, "sha256": ""}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="no manifest of a checkpoint"):
        find_checkpoint(folder)


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("sharded", [False, True])
def test_no_pickle_is_ever_read(store, tmp_path, sharded):
    """Whatever a stranger puts in, with a manifest that fits."""
    trained = make()
    train(*trained, range(1))
    saved = save(store, 1, parts=trained, sharded=sharded)
    evil = pickle.dumps(Evil(tmp_path / "owned"))
    shards = list((saved.folder / "shards").glob("*")) or [saved.folder / "optimizer.safetensors"]
    (shards[0].parent / ".metadata").write_bytes(evil)
    store.load(saved, *make(1))
    shards[0].write_bytes(evil)
    with pytest.raises(UserError, match="use another checkpoint"):
        store.load(saved, *make(1))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"tensors": {"first.weight/exp_avg": ["float32", [10**6, 10**6]]}}, "the files are smaller"),
        ({"tensors": {"first.weight/exp_avg": ["object", [5, 3]]}}, "no state of a checkpoint"),
        ({"tensors": {"frozen.weight/exp_avg": ["float32", [2, 2]]}}, "parameters that are not trained"),
        ({"tensors": {"last.bias/gone": ["float32", [1]]}}, "optimizer.safetensors: it cannot be read"),
        ({"tensors": {"last.bias/step": ["float32", [1]]}}, r"last.bias/step is \[\], \[1\] expected"),
        ({"groups": 3}, "no state of a checkpoint"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(store, change, told):
    trained = make()
    train(*trained, range(1))
    saved = save(store, 1, parts=trained)
    path = saved.folder / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=told):
        store.load(saved, *make(1))


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


# What a user gives


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder with a best checkpoint (1) and a newest one (2)."""
    store = CheckpointStore(tmp_path / "checkpoints")
    save(store, 1, metric=0.9)
    save(store, 2, metric=0.1)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "iters", "weights_iters"),
    [
        (".", 2, 1),
        ("checkpoints", 2, 1),
        ("checkpoints/iter_000001", 1, 1),
        ("checkpoints/last", 2, 2),
        ("checkpoints/best", 1, 1),
        ("checkpoints/best/weights.safetensors", 1, 1),
        ("checkpoints/last/manifest.json", 2, 2),
    ],
)
def test_everything_that_names_a_checkpoint_is_understood(run, given, iters, weights_iters):
    assert find_checkpoint(run / given).iters == iters
    weights = weights_of(str(run / given))
    assert weights.resolve() == run / f"checkpoints/iter_{weights_iters:06d}/weights.safetensors"


def test_a_plain_file_of_weights_is_taken_as_it_is(tmp_path):
    path = tmp_path / "mine.safetensors"
    save_file({"w": torch.zeros(1)}, path)
    assert weights_of(path) == path
    with pytest.raises(
        UserError, match="mine.safetensors': a file without manifest.json beside it; to resume"
    ):
        find_checkpoint(path)


def test_weights_are_taken_from_a_checkpoint_whose_optimizer_is_damaged(run):
    _flip(run / "checkpoints/best/optimizer.safetensors")
    assert weights_of(run).parent.name == "iter_000001"
    with pytest.raises(UserError, match="optimizer.safetensors: its SHA-256"):
        find_checkpoint(run / "checkpoints/best")


def test_without_a_whole_best_the_weights_of_the_newest_are_taken(run):
    _flip(run / "checkpoints/best/weights.safetensors")
    assert weights_of(run).parent.name == "iter_000002"


def test_what_names_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(
        UserError, match="gone': no such file or folder; give a run's folder or a folder in its"
    ):
        find_checkpoint(tmp_path / "gone")
    with pytest.raises(UserError, match="no whole checkpoint in it"):
        weights_of(tmp_path)


# Configs

CONFIG = {
    "model": {"arch": "ealign_llava", "lora": {"r": 8}, "batching": "groups", "trainable": "lora"},
    "datasets": {"news": {"recipe": {"tasks": {"caption": 1}}, "build_info": {"images": {"storage": "/a"}}}},
    "run": {"init_lr": 1e-3, "output_dir": "a", "max_iters": 10},
}


def changed(key: str, value) -> dict:
    config = json.loads(json.dumps(CONFIG))
    *path, last = key.split("/")
    place = config
    for name in path:
        place = place[name]
    place[last] = value
    return config


def checkpoint(config: dict, version: str | None = None) -> Checkpoint:
    here = versions()
    here |= {"ealign_plugin": version} if version else {}
    return Checkpoint(Path("iter_000001"), {"config": config, "versions": here})


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        (
            "model/lora/r",
            16,
            "model.lora.r: 8 when the checkpoint was saved, 16 now; set them back to resume",
        ),
        ("model/trainable", None, 'model.trainable: "lora" when the checkpoint was saved, nothing now'),
        ("datasets/news/recipe/tasks/entity", 2, "datasets.news.recipe.tasks.entity: nothing when .*, 2 now"),
    ],
)
def test_another_model_or_other_data_are_an_error(key, value, told):
    with pytest.raises(UserError, match=told):
        check_config(checkpoint(CONFIG), changed(key, value))


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("run/init_lr", 0.01, ["run.init_lr: 0.001 when the checkpoint was saved, 0.01 now"]),
        ("run/output_dir", "b", []),
        (
            "model/batching",
            "packed",
            ['model.batching: "groups" when the checkpoint was saved, "packed" now'],
        ),
        ("model/new_key", [], []),
    ],
)
def test_other_differences_are_told(key, value, told):
    assert check_config(checkpoint(CONFIG), changed(key, value)) == told


def test_data_may_have_moved():
    moved = changed("datasets/news/build_info/images/storage", "/b")
    assert len(check_config(checkpoint(CONFIG), moved)) == 1


def test_a_key_that_another_version_did_not_know_is_no_error():
    later = changed("model/new_key", 3)
    assert len(check_config(checkpoint(CONFIG, version="0.0.1"), later)) == 1
    with pytest.raises(UserError, match="model.new_key: nothing when"):
        check_config(checkpoint(CONFIG), later)


# Several processes


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
