"""What inference asks of a model; `NewsModel` has it, and so can any class of another package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class CaptioningModel(Protocol):
    """A model that scores given answers about an image, and writes answers.

    B images are float [B, 3, H, W]; their features [B, P, V] are whatever `encode_images` returns, and are
    handed back to `score` and `generate` as they are.
    """

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""

    def eval(self) -> Any:
        """Leave training mode; returns the model."""

    def encode_images(self, images: Tensor) -> Tensor:
        """Features [B, P, V] of images [B, 3, H, W]; see `NewsModel.encode_images`."""

    def score(
        self,
        features: Tensor,
        prefix: str,
        candidates: Sequence[str],
        answers: Sequence[str],
        *,
        question: str | None = None,
        batch_tokens: int = 16_384,
    ) -> Tensor:
        """Log-probability of each answer after ``prefix + candidate`` [n_candidates, n_answers], for one
        image; see `NewsModel.score`."""

    def generate(
        self,
        samples: Mapping[str, Any],
        use_nucleus_sampling: bool = False,
        num_beams: int = 5,
        max_length: int = 64,
        min_length: int = 1,
        top_p: float = 0.9,
        repetition_penalty: float = 1.0,
        length_penalty: float = 1.0,
        num_captions: int = 1,
        temperature: float = 1.0,
    ) -> list[str]:
        """``B × num_captions`` answers to the instructions; see `NewsModel.generate`."""

    def count_tokens(self, text: str) -> int:
        """Tokens of the language model that a text takes, nothing added."""

    def remaining(self, texts: Sequence[str]) -> list[str]:
        """What `generate` reads of each instruction: the end of one that is too long, else the whole."""
