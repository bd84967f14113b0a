"""The micro model with random weights, and a batch of unlike examples."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lavis.models import load_model

from ealign_plugin.models import InstructBlip

TEXTS = [  # instruction, target; longest first, so that a batch keeps this order
    (
        "Article: The mayor spoke in the harbour of Oslo, where the police had closed two streets since the "
        "morning, and then left by train. Write the caption of the photo.",
        "Ana Lopez speaks in Oslo on 3 May.",
    ),
    (
        "Which people does the photo show? Name them all, with commas between the names.",
        "Ana Lopez, Jun Park",
    ),
    ("Does this sentence tell what the photo shows? The police closed two streets.", "no"),
    ("Who?", "Oslo"),
]


@pytest.fixture(scope="session")
def model() -> InstructBlip:
    """In eval mode. Whoever changes an attribute does it by monkeypatch."""
    torch.manual_seed(0)
    return load_model("ealign_instructblip", "micro", is_eval=True)


@pytest.fixture
def samples() -> dict[str, Any]:
    return make_samples()


def make_samples() -> dict[str, Any]:
    """Four examples of unlike length, each a task of its own: ``loss_<task>`` is that of one example."""
    images = torch.randn(len(TEXTS), 3, 64, 64, generator=torch.Generator().manual_seed(1))
    return {
        "image": images,
        "instruction": [instruction for instruction, _ in TEXTS],
        "target": [target for _, target in TEXTS],
        "task": ["a", "b", "c", "d"],
    }


def take(samples: dict[str, Any], rows: list[int]) -> dict[str, Any]:
    """Some rows of a batch."""
    return {
        name: value[rows] if isinstance(value, torch.Tensor) else [value[row] for row in rows]
        for name, value in samples.items()
    }


@pytest.fixture
def rows_of() -> Callable[[dict[str, Any], list[int]], dict[str, Any]]:
    return take


@pytest.fixture
def push(model: InstructBlip) -> Any:
    """``push(token_id, logit)`` adds to the language model's logit of a token until the test ends."""
    handles = []

    def add(token: int, logit: float) -> None:
        bias = torch.zeros(model.config.text_config.vocab_size)
        bias[token] = logit
        handles.append(model.language_model.lm_head.register_forward_hook(lambda _, __, out: out + bias))

    yield add
    for handle in handles:
        handle.remove()
