"""From a batch's images to the tokens that the language model sees of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ealign_plugin.errors import UserError

if TYPE_CHECKING:
    from ealign_plugin.models.base import NewsModel


def encode_images(model: NewsModel, images: Tensor) -> Tensor:
    """See `NewsModel.encode_images`."""
    size = model.config.vision_config.image_size
    if images.shape[-2:] != (size, size):
        found = "×".join(map(str, images.shape[-2:]))
        raise UserError(
            f"image: {found} pixels found, {size}×{size} expected; set image_size of the vis_processor "
            "to that of model.vision_config"
        )
    trained = any(
        parameter.requires_grad
        for name in model.PARTS["vision"]
        for parameter in model.get_submodule(name).parameters()
    )
    with torch.set_grad_enabled(trained and torch.is_grad_enabled()):
        return model.vision_features(images)


def image_tokens_of(model: NewsModel, samples: Mapping[str, Any]) -> Tensor:
    """Image tokens [B, Q, D]; each distinct image is encoded once, each (image, question) read once."""
    questions = (model.reads == "question" and samples.get("question")) or samples["instruction"]
    questions = [questions] * len(samples["instruction"]) if isinstance(questions, str) else questions
    if model.reads == "nothing":
        questions = [""] * len(questions)
    keys = samples.get("key") or range(len(questions))
    first: dict[Any, int] = {}
    for index, key in enumerate(keys):
        first.setdefault(key, index)
    place = {key: number for number, key in enumerate(first)}
    features = samples.get("features")
    if features is None:
        features = model.encode_images(samples["image"][list(first.values())])
    else:
        features = features[list(first.values())]
    pairs: dict[tuple[int, str], int] = {}
    owner = [
        pairs.setdefault((place[key], question), len(pairs))
        for key, question in zip(keys, questions, strict=True)
    ]
    images = torch.tensor([image for image, _ in pairs], device=features.device)
    # Not by [...]: on a CPU its backward adds up what examples share in an order that threads race for.
    tokens = model.image_tokens(features.index_select(0, images), [text for _, text in pairs])
    return tokens.index_select(0, torch.tensor(owner, device=tokens.device))
