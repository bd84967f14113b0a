"""The checkpoint that a user means."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ealign_plugin.errors import UserError
from ealign_plugin.training.checkpoints.store import CheckpointStore, find_checkpoint, find_weights
from tests.training.checkpoints.saving import (
    damage_one_byte,
    save,
)


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
    weights = find_weights(str(run / given))
    assert weights.resolve() == run / f"checkpoints/iter_{weights_iters:06d}/weights.safetensors"


def test_a_plain_file_of_weights_is_taken_as_it_is(tmp_path):
    path = tmp_path / "mine.safetensors"
    save_file({"w": torch.zeros(1)}, path)
    assert find_weights(path) == path
    with pytest.raises(
        UserError, match="mine.safetensors': a file without manifest.json beside it; to resume"
    ):
        find_checkpoint(path)


def test_weights_are_taken_from_a_checkpoint_whose_optimizer_is_damaged(run):
    damage_one_byte(run / "checkpoints/best/optimizer.safetensors")
    assert find_weights(run).parent.name == "iter_000001"
    with pytest.raises(UserError, match="optimizer.safetensors: its SHA-256"):
        find_checkpoint(run / "checkpoints/best")


def test_without_a_whole_best_the_weights_of_the_newest_are_taken(run):
    damage_one_byte(run / "checkpoints/best/weights.safetensors")
    assert find_weights(run).parent.name == "iter_000002"


def test_what_names_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(
        UserError, match="gone': no such file or folder; give a run's folder or a folder in its"
    ):
        find_checkpoint(tmp_path / "gone")
    with pytest.raises(UserError, match="no whole checkpoint in it"):
        find_weights(tmp_path)
