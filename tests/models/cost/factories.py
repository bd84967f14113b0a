"""Shapes of micro models, and batches for them."""

from typing import Any

import torch
import yaml
from lavis.common.registry import registry

from ealign_plugin.models.cost.shapes import Reading, reading_of, shape_of

RECIPES = ["connector", "llm", "connector+llm", "lora", "all"]
ARCHS = ["ealign_instructblip", "ealign_llava"]
family = registry.get_model_class
ROWS = 3
TEXT = {
    "instruction": "The mayor of Oslo spoke on 3 May and the police closed two streets. " * 8,
    "question": "Who is in the photo? Name them all. " * 3,
    "target": "Ana Lopez speaks in Oslo. " * 6,
}


def micro_shape(arch: str) -> dict[str, Any]:
    with open(family(arch).PRETRAINED_MODEL_CONFIG_DICT["micro"], encoding="utf-8") as file:
        return shape_of(yaml.safe_load(file)["model"])


def batch(model: Any) -> dict[str, Any]:
    size = model.config.vision_config.image_size
    images = torch.randn(ROWS, 3, size, size, generator=torch.Generator().manual_seed(1))
    return {"image": images, **{name: [text] * ROWS for name, text in TEXT.items()}}


def reading(model: Any) -> Reading:
    return reading_of(
        model.config,
        question=len(model.ids([TEXT["question"]])[0]) + 1,
        prompt=len(model.before) + len(model.prompts([TEXT["instruction"]])[0]),
        target=len(model.targets([TEXT["target"]])[0]),
    )


READING = Reading(patches=257, queries=32, question=64, prompt=600, target=60)
