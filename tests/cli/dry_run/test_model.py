"""Weights and checkpoints of a dry run are held against the model by their headers."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from lavis.models import load_model
from safetensors.torch import load_file, save_file

from ealign_plugin.models.weights.export import export
from ealign_plugin.registered.processors import MEAN, STD
from tests.cli.dry_run.factories import pretrained


@pytest.fixture(scope="module")
def published(tmp_path_factory: Any) -> Path:
    """A folder of transformers with a whole model of the size of type ``micro``."""
    folder = tmp_path_factory.mktemp("published") / "model"
    torch.manual_seed(0)
    export(load_model("ealign_instructblip", "micro"), folder, mean=MEAN, std=STD)
    return folder


@pytest.fixture
def weights(published: Path, tmp_path: Path) -> Path:
    """A copy of it, to be spoilt."""
    return Path(shutil.copytree(published, tmp_path / "weights"))


def change(file: Path, edit: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    content = load_file(file)
    edit(content)
    save_file(content, file, metadata={"format": "pt"})


def test_a_folder_of_weights_that_fits(dry, weights):
    report = dry(model=pretrained(weights, trainable="lora"))
    assert report.code == 0, report.error
    assert "weights, which fit" in report.plan
    assert "vision 0.5 (frozen), connector 1.1 (trained), llm 0.9 (frozen), lora 0.1 (trained)" in report.plan


def test_weights_of_another_shape_and_a_broken_file(dry, weights):
    file = weights / "model.safetensors"
    change(file, lambda content: content.update(query_tokens=torch.zeros(1, 3, 128)))
    report = dry(model=pretrained(weights))
    assert report.code == 2
    assert (
        "1 of another shape; the first is query_tokens [1, 3, 128] where [1, 8, 128] is expected"
        in report.error
    )
    file.write_bytes(file.read_bytes()[:-9])
    assert "model.safetensors: it is no safetensors file" in dry(model=pretrained(weights)).error


def test_a_hub_that_gives_headers(dry, weights, monkeypatch):
    file = weights / "model.safetensors"
    meta = huggingface_hub.utils.SafetensorsFileMetadata
    tensors = {
        name: huggingface_hub.utils.TensorInfo("F32", list(value.shape), (0, 4 * value.numel()))
        for name, value in load_file(file).items()
    }
    one = meta(metadata={}, tensors=tensors)
    file.unlink()
    asked = []

    def headers(name, revision=None):
        asked.append((name, revision))
        return huggingface_hub.utils.SafetensorsRepoMetadata(None, False, {}, {"model.safetensors": one})

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(weights))
    monkeypatch.setattr(huggingface_hub, "get_safetensors_metadata", headers)
    report = dry(model=pretrained("owner/name@v1"))
    assert "weights of owner/name@v1, which fit; 9.4 MiB will be downloaded" in report.plan, report.error
    assert asked == [("owner/name", "v1")]
    del tensors["query_tokens"]
    assert "1 missing" in dry(model=pretrained("owner/name")).error


def test_a_hub_that_does_not_answer(dry, weights, monkeypatch):
    (weights / "model.safetensors").unlink()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(weights))
    report = dry(model=pretrained("owner/name"))
    assert report.code == 2 and "'owner/name': its weights are not here, and the hub does not" in report.error


def checkpoint(path: Path, leave_out: str = "none", **metadata: str) -> Path:
    state = load_model("ealign_instructblip", "micro").trainable_state()
    content = {name: value.clone() for name, value in state.items() if not name.startswith(leave_out)}
    save_file(content, path, metadata=metadata)
    return path


@pytest.mark.parametrize("key", ["run.resume_ckpt_path", "model.finetuned"])
def test_a_checkpoint_is_held_against_the_model(dry, key, tmp_path):
    more = ["model.load_finetuned=true"] if key == "model.finetuned" else []
    report = dry(f"{key}={checkpoint(tmp_path / 'whole.safetensors')}", *more)
    assert report.code == 0, report.error
    assert "random weights; then" in report.plan
    part = checkpoint(tmp_path / "part.safetensors", leave_out="qformer.embeddings.")
    report = dry(f"{key}={part}", *more)
    assert f"{key}: {part}: weights of another model or size (" in report.error and " more" not in report.plan
    assert "the first is qformer.embeddings." in report.error
    assert f"{key}: 'gone.safetensors': no such file" in dry(f"{key}=gone.safetensors", *more).error


def test_a_checkpoint_of_another_recipe(dry, tmp_path):
    path = checkpoint(tmp_path / "other.safetensors", arch="ealign_llava")
    report = dry(f"run.resume_ckpt_path={path}", "model.trainable=connector")
    assert report.code == 2
