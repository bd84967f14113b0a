"""What this room asks of a model, a data set and an image processor; any class that has it will do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, Self

import torch
from PIL import Image
from torch import Tensor

from ealign_plugin.alignment.prompts import Wording
from ealign_plugin.news import NewsSample


class CaptioningModel(Protocol):
    """A model that reads a photo and an instruction, and writes or compares answers."""

    def eval(self) -> Self:
        """Put it into evaluation mode."""
        ...

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """Its weights; the first says on which device the model is."""
        ...

    def encode_images(self, images: Tensor) -> Tensor:
        """Features [B, P, V] of images [B, 3, H, W]."""
        ...

    def score(
        self,
        features: Tensor,
        prefix: str,
        candidates: Sequence[str],
        answers: Sequence[str],
        *,
        question: str | None = None,
    ) -> Tensor:
        """Log-probability [n_candidates, n_answers] of each answer after ``prefix + candidate``."""
        ...

    def generate(
        self,
        samples: Mapping[str, Any],
        *,
        num_beams: int,
        max_length: int,
        min_length: int,
        repetition_penalty: float,
        length_penalty: float,
    ) -> list[str]:
        """Answers to ``instruction``, lists of B strings beside ``features`` [B, P, V]."""
        ...

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts, nothing added."""
        ...

    def __call__(self, samples: Mapping[str, Any]) -> Mapping[str, Tensor]:
        """Losses of a batch: ``loss``, and ``loss_<task>`` for each task in it."""
        ...


class EvaluationData(Protocol):
    """A split whose photos are evaluated, each once; `EvaluationSamples` is one."""

    split: str
    ner: Mapping[str, str]
    """``name`` and ``version`` of the spaCy model that annotated the samples."""
    wording: Wording
    tasks: Sequence[str]
    """Names of the tasks that the training mixes."""

    def __len__(self) -> int: ...

    def sample(self, index: int) -> NewsSample:
        """A sample without its photo."""
        ...

    def identity(self) -> dict[str, Any]:
        """JSON values that say which samples these are and how they are read."""
        ...

    def leave_out(self, indexes: Iterable[int]) -> None:
        """Read no photos of these any more."""
        ...


class ImageProcessor(Protocol):
    """Picture → tensor [3, H, W].

    One that has ``decode_size`` (pixels, or None) allows JPEG files to be decoded at a fraction of their
    size, not below it.
    """

    def __call__(self, image: Image.Image) -> Tensor: ...
