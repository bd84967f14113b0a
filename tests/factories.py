"""What tests of several rooms are made of: the micro model, and a batch for it."""

from __future__ import annotations

from typing import Any

import torch
from lavis.models import load_model

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


def micro_model() -> Any:
    """InstructBLIP of type ``micro`` with random weights; every call builds the same."""
    torch.manual_seed(0)
    return load_model("ealign_instructblip", "micro")


def micro_batch() -> dict[str, Any]:
    """Four examples of unlike length, each a task of its own: ``loss_<task>`` is that of one example."""
    images = torch.randn(len(TEXTS), 3, 64, 64, generator=torch.Generator().manual_seed(1))
    return {
        "image": images,
        "instruction": [instruction for instruction, _ in TEXTS],
        "target": [target for _, target in TEXTS],
        "task": ["a", "b", "c", "d"],
    }
