"""Processors of pictures and texts, registered with LAVIS.

LAVIS's own caption processor lower-cases, drops punctuation and cuts at 50 words: it would destroy the
names that this project is about.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lavis.processors.base_processor import BaseProcessor
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as T

from ealign_plugin.errors import UserError
from ealign_plugin.host.registration import registered

# CLIP's, which InstructBLIP's image encoder was trained with.
MEAN = (0.48145466, 0.4578275, 0.40821073)


STD = (0.26862954, 0.26130258, 0.27577711)


@registered("processor", "ealign_image")
class ImageProcessor(BaseProcessor):
    """Picture → tensor [3, size, size]: RGB, resized without cropping, normalised; people stand at the edges.

    Args:
        image_size: Width and height in pixels.
        mean: Mean of each channel.
        std: Standard deviation of each channel.
        decode_margin: A JPEG file at least twice as large as ``decode_margin × image_size`` is decoded at
            half, a quarter or an eighth of its size: faster, and hardly to be told apart. 0: all of it.
    """

    def __init__(
        self,
        image_size: int = 224,
        mean: Sequence[float] = MEAN,
        std: Sequence[float] = STD,
        decode_margin: float = 0.0,
    ) -> None:
        self.image_size, self.mean, self.std = image_size, list(mean), list(std)
        self.decode_size = round(image_size * decode_margin) or None

    def __call__(self, image: Image.Image) -> Tensor:
        size = (self.image_size, self.image_size)
        image = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
        return T.normalize(T.to_tensor(image), self.mean, self.std)

    @classmethod
    def from_config(cls, cfg: DictConfig | None = None) -> ImageProcessor:
        """Build from the arguments above, each with its default.

        Raises:
            UserError: an argument that there is not.
        """
        return cls(**_arguments("ealign_image", cfg, ("image_size", "mean", "std", "decode_margin")))


@registered("processor", "ealign_text")
class TextProcessor(BaseProcessor):
    """Text → text with its white space folded; case and punctuation stay, names need them."""

    def __init__(self) -> None:
        pass

    def __call__(self, text: str) -> str:
        return " ".join(text.split())

    @classmethod
    def from_config(cls, cfg: DictConfig | None = None) -> TextProcessor:
        """Build; it has no arguments.

        Raises:
            UserError: there is one.
        """
        return cls(**_arguments("ealign_text", cfg, ()))


def _arguments(processor: str, cfg: DictConfig | None, known: Sequence[str]) -> dict[str, Any]:
    values = {str(key): value for key, value in (cfg or {}).items() if key != "name"}
    if unknown := sorted(set(values) - set(known)):
        raise UserError(
            f"processor {processor}: unknown key {', '.join(unknown)}, expected "
            f"{', '.join(known) or 'none'}; correct it or take it out"
        )
    return values
