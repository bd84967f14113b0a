"""What this room asks of a model, a data set and an image processor; any class that has it will do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from ealign_plugin.alignment.prompts import Wording
from ealign_plugin.metrics.subsets import TrainingNames
from ealign_plugin.models.protocol import CaptioningModel
from ealign_plugin.news import NewsSample


class EvaluatedModel(CaptioningModel, Protocol):
    """A model whose evaluation may also measure losses, and is continued only with the same weights."""

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """Its weights."""
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

    def training_names(self, folder: Path) -> TrainingNames:
        """The names that the training held, read once and kept in a file of this folder."""
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
