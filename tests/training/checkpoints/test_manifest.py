"""Damaged checkpoints are passed over or refused; nothing in one is executed."""

from __future__ import annotations

import json
import os
import pickle
import re
from pathlib import Path

import pytest

from ealign_plugin.errors import UserError
from ealign_plugin.training.checkpoints.store import CheckpointStore, find_checkpoint
from tests.training.checkpoints.saving import (
    damage_one_byte,
    make,
    save,
    train,
)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("weights.safetensors", lambda path: os.truncate(path, 100), "weights.safetensors: 100 bytes found"),
        ("optimizer.safetensors", damage_one_byte, "optimizer.safetensors: its SHA-256"),
        ("state.json", Path.unlink, "state.json: the file is missing"),
        ("manifest.json", Path.unlink, "manifest.json: it cannot be read .No such file"),
        ("manifest.json", lambda path: os.truncate(path, 100), "manifest.json: it is no JSON"),
        ("manifest.json", lambda path: path.write_text("{}"), "format None found, 1 expected"),
        ("manifest.json", lambda path: path.write_text('{"format": 1}'), "no manifest of a checkpoint"),
    ],
)
def test_a_damaged_newest_is_passed_over_with_a_warning(tmp_path, caplog, name, damage, message):
    store = CheckpointStore(tmp_path, keep_last=2)
    save(store, 1)
    damage(save(store, 2).folder / name)
    caplog.clear()
    assert store.newest().iters == 1
    assert re.search(message, caplog.text)
    with pytest.raises(UserError, match=message):
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
