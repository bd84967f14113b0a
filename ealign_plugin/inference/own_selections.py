"""Pass 1 over photos of a training: what the model selects there, for a recipe to draw from."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ealign_plugin.alignment.selection import Selection
from ealign_plugin.inference.two_pass import TwoPasses
from ealign_plugin.news import NewsSample


@torch.no_grad()
def select_all(
    passes: TwoPasses, batches: Iterable[tuple[Sequence[NewsSample], Tensor]]
) -> Iterator[tuple[NewsSample, Selection]]:
    """What the model selects for each photo, in order.

    Args:
        passes: Of the model, in evaluation mode.
        batches: Samples and their photos [B, 3, H, W].
    """
    for samples, images in batches:
        features = passes.model.encode_images(images.to(passes.model.device))
        for sample, first in zip(samples, passes.select(features, samples), strict=True):
            yield sample, first.selection


def readable(batches: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Sequence[NewsSample], Tensor]]:
    """Samples and photos of the batches of `EvaluationSamples.collater`; what is unreadable is logged."""
    for batch in batches:
        for item in batch["errors"]:
            logging.warning("a photo is left out: %s", item["error"])
        if batch["sample"]:
            yield batch["sample"], batch["image"]
