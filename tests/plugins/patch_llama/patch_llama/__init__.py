"""A model family without an image encoder: patches of the image, projected, are the image tokens.

::

    image [3, H, W] ─ patches ─ [P, V] ─ projection ─ [P, D]
                                                        │
    instruction, target [T, D] ─────────────── [P + T, D] ─ language_model
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn
from transformers import LlamaConfig

from ealign_plugin.models.base import NewsModel
from ealign_plugin.models.families import register_family
from ealign_plugin.models.tokenizers import frame_of, read_tokenizer


@register_family("patch_llama")
class PatchLlama(NewsModel):
    """A Llama that reads image patches; see `NewsModel` for what a batch is.

    Args:
        config: ``vision_config`` (``image_size``, ``patch_size``, ``hidden_size``) and ``text_config``, the
            fields of transformers' `LlamaConfig`.
        tokenizer: Path of a ``tokenizer.json`` with ``<s>``, ``</s>`` and ``<pad>``.
        options: Of `NewsModel`.
    """

    PRETRAINED_MODEL_CONFIG_DICT = {"micro": str(Path(__file__).with_name("micro.yaml"))}
    PARTS = {"vision": ("patches",), "connector": ("projection",), "llm": ("language_model",)}
    SHAPE = ("vision_config", "text_config")

    def __init__(self, *, config: Mapping[str, Any], tokenizer: str | Path, **options: Any) -> None:
        super().__init__(**options)
        vision = SimpleNamespace(**config["vision_config"])
        self.config = SimpleNamespace(vision_config=vision, text_config=LlamaConfig(**config["text_config"]))
        self.tokenizer = read_tokenizer(tokenizer)
        self.frame = frame_of(self.tokenizer)
        self.reads = "nothing"  # the image tokens are the same whatever the question
        self.patches = nn.Conv2d(3, vision.hidden_size, vision.patch_size, stride=vision.patch_size)
        self.projection = nn.Sequential(
            nn.GELU(), nn.Linear(vision.hidden_size, self.config.text_config.hidden_size)
        )
        self.language_model = self.build_language_model(self.config.text_config)
        self.set_precision()

    def vision_features(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] → patches [B, P, V]."""
        return self.patches(images).flatten(2).transpose(1, 2)

    def image_tokens(self, features: Tensor, questions: Sequence[str]) -> Tensor:
        """Patches [B, P, V] → image tokens [B, P, D]."""
        return self.projection(features)
