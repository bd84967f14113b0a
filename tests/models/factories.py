"""What tests of models share besides fixtures."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ealign_plugin.models.base import NewsModel


@contextmanager
def outputs_of_generate(model: NewsModel) -> Iterator[list[torch.Tensor]]:
    """What transformers' ``generate`` returns inside: token ids, a tensor for each call.

    The class is watched, not the language model: writing may run on a view of it.
    """
    kind: Any = type(model.language_model)
    outputs: list[torch.Tensor] = []
    generate = kind.generate

    def watched(language_model: Any, **arguments: Any) -> torch.Tensor:
        outputs.append(generate(language_model, **arguments))
        return outputs[-1]

    kind.generate = watched
    try:
        yield outputs
    finally:
        del kind.generate  # it is inherited
