"""The family learns, scores and writes by the methods that it shares with the others."""

from __future__ import annotations

import pytest
import torch
from patch_llama import PatchLlama

from ealign_plugin.models.families import build_model


@pytest.fixture(scope="module")
def model() -> PatchLlama:
    torch.manual_seed(0)
    return build_model({"arch": "patch_llama", "model_type": "micro"})


def images(number: int) -> torch.Tensor:
    return torch.rand(number, 3, 64, 64)


def test_an_image_becomes_a_token_for_each_patch(model):
    features = model.encode_images(images(2))
    assert features.shape == (2, 16, 64)
    assert model.image_tokens(features, ["", ""]).shape == (2, 16, 64)


def test_a_batch_gives_a_loss_that_trains_all_parts(model):
    batch = {
        "image": images(2),
        "instruction": ["Article: Ana spoke. Write the caption:", "Is this sentence about the photo?"],
        "target": ["Ana Ruiz speaks.", "yes"],
        "task": ["caption", "sentence"],
        "key": ["a0", "a1"],
    }
    model(batch)["loss"].backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_sentences_are_scored_and_captions_written(model):
    model.eval()
    with torch.no_grad():
        features = model.encode_images(images(1))
        scores = model.score(features, "About the photo?", [" Ana spoke.", " It rained."], ["yes", "no"])
    assert scores.shape == (2, 2) and (scores < 0).all()
    samples = {"features": features, "instruction": ["Write the caption:"]}
    assert len(model.generate(samples, num_beams=2, max_length=4)) == 1
