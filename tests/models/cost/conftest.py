"""Models of type micro beside their shapes, and the shape of the 7B model."""

from typing import Any

import pytest
import torch
from lavis.models import load_model

from ealign_plugin.models.cost.shapes import on_meta, shape_of
from tests.models.cost.factories import ARCHS, RECIPES, family, micro_shape


@pytest.fixture(scope="module")
def shape() -> dict[str, Any]:
    return micro_shape("ealign_instructblip")


@pytest.fixture(scope="module", params=[(arch, recipe) for arch in ARCHS for recipe in RECIPES], ids=" ".join)
def pair(request) -> tuple[Any, Any]:
    """The micro model, and its shape on the meta device, with the same parts trained."""
    arch, recipe = request.param
    torch.manual_seed(0)
    setting = {"trainable": recipe, "lora": {"r": 4}}
    real = load_model(arch, "micro").train()
    real.set_up(setting)
    return real, on_meta(family(arch), micro_shape(arch), **setting)


@pytest.fixture(scope="module")
def vicuna() -> dict[str, Any]:
    return shape_of({"arch": "ealign_instructblip", "pretrained": "Salesforce/instructblip-vicuna-7b"})
