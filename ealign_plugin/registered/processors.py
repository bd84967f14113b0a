"""Processors of pictures and texts, registered with LAVIS.

LAVIS's own caption processor lower-cases, drops punctuation and cuts at 50 words: it would destroy the
names that this project is about.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lavis.processors.base_processor import BaseProcessor

from ealign_plugin.alignment.prompts import fold_white_space
from ealign_plugin.host.registration import registered
from ealign_plugin.models import preprocessing
from ealign_plugin.models.preprocessing import IMAGE_PROCESSOR, MEAN, STD, known_arguments

__all__ = ["MEAN", "STD", "ImageProcessor", "TextProcessor"]


@registered("processor", IMAGE_PROCESSOR)
class ImageProcessor(preprocessing.ImageProcessor, BaseProcessor):
    """`ealign_plugin.models.preprocessing.ImageProcessor` for LAVIS."""


@registered("processor", "ealign_text")
class TextProcessor(BaseProcessor):
    """Text → text with its white space folded; case and punctuation stay, names need them."""

    def __init__(self) -> None:
        pass

    def __call__(self, text: str) -> str:
        return fold_white_space(text)

    @classmethod
    def from_config(cls, cfg: Mapping[str, Any] | None = None) -> TextProcessor:
        """Build; it has no arguments.

        Raises:
            UserError: there is one.
        """
        known_arguments("ealign_text", cfg, ())
        return cls()
