"""Pictures as models read them.

LAVIS knows the same processors by name (`ealign_plugin.registered.processors`); here they need no LAVIS, so
that a captioner can be made from a checkpoint alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as T

from ealign_plugin.errors import UserError

# CLIP's, which InstructBLIP's image encoder was trained with.
MEAN = (0.48145466, 0.4578275, 0.40821073)


STD = (0.26862954, 0.26130258, 0.27577711)


IMAGE_PROCESSOR = "ealign_image"
"""Name of `ImageProcessor` in configs."""


class ImageProcessor:
    """Picture → tensor [3, size, size]: RGB, resized without cropping, normalised; people stand at the edges.

    Args:
        image_size: Width and height in pixels.
        mean: Mean of each channel.
        std: Standard deviation of each channel.
        decode_margin: A JPEG file at least twice as large as ``decode_margin × image_size`` is decoded at
            half, a quarter or an eighth of its size: faster, and hardly to be told apart. 0: all of it.

    Example:
        >>> ImageProcessor(64)(Image.new("RGB", (200, 100))).shape
        torch.Size([3, 64, 64])
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
    def from_config(cls, cfg: Mapping[str, Any] | None = None) -> Self:
        """Build from the arguments above, each with its default; ``name`` is not looked at.

        Raises:
            UserError: an argument that there is not.
        """
        return cls(**known_arguments(IMAGE_PROCESSOR, cfg, ("image_size", "mean", "std", "decode_margin")))


def image_processor_from(values: Mapping[str, Any]) -> ImageProcessor:
    """The image processor of this package that ``name`` and arguments describe.

    Raises:
        UserError: another name, or an argument that there is not.
    """
    if values.get("name") != IMAGE_PROCESSOR:
        raise UserError(
            f"image processor: {values.get('name')!r} found, expected {IMAGE_PROCESSOR!r}, the one of this "
            "package"
        )
    return ImageProcessor.from_config(values)


def known_arguments(processor: str, cfg: Mapping[str, Any] | None, known: Sequence[str]) -> dict[str, Any]:
    """The arguments of a processor's section, all but its name.

    Raises:
        UserError: one that the processor does not have.
    """
    values = {str(key): value for key, value in (cfg or {}).items() if key != "name"}
    if unknown := sorted(set(values) - set(known)):
        raise UserError(
            f"processor {processor}: unknown key {', '.join(unknown)}, expected "
            f"{', '.join(known) or 'none'}; correct it or take it out"
        )
    return values
