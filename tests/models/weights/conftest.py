"""A micro model to be changed, and a folder that transformers wrote."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from lavis.models import load_model
from transformers import InstructBlipForConditionalGeneration

from ealign_plugin.models.weights.hub import INDEX
from tests.models.weights.factories import randomised


@pytest.fixture
def fresh() -> Any:
    """A micro model of its own, to be changed."""
    torch.manual_seed(3)
    return load_model("ealign_instructblip", "micro", is_eval=True)


@pytest.fixture(scope="module")
def saved(tmp_path_factory, model) -> tuple[Path, dict[str, torch.Tensor]]:
    """A folder of transformers' own, and the weights in it."""
    hf = randomised(InstructBlipForConditionalGeneration(model.config), seed=1)
    folder = tmp_path_factory.mktemp("saved")
    hf.save_pretrained(folder, max_shard_size="2MB")
    assert (folder / INDEX).is_file()
    return folder, hf.state_dict()


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    """A copy of ``saved``, to be spoilt."""
    return Path(shutil.copytree(saved[0], tmp_path / "folder"))
