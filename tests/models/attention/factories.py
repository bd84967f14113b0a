"""Models that run in each of the three ways, and batches of examples of unlike length."""

from typing import Any

import torch
from omegaconf import OmegaConf

from ealign_plugin.models import InstructBlip

CONFIG = OmegaConf.load(InstructBlip.default_config_path("micro")).model
CONFIG.text_config.num_key_value_heads = 2  # two query heads share a key head
CONFIG.text_config.num_hidden_layers = 2
MODES = ("groups", "padded", "packed")
WORDS = "The mayor spoke in the harbour of Oslo where police had closed two streets".split()


def seeded(**changes: Any) -> InstructBlip:
    torch.manual_seed(0)
    return InstructBlip.from_config(OmegaConf.merge(CONFIG, changes)).eval()


def batch_of(lengths: list[tuple[int, int]]) -> dict[str, Any]:
    """Examples with so many words of instruction and of target."""

    def text(count: int) -> str:
        return " ".join(WORDS[i * count % len(WORDS)] for i in range(count))

    return {
        "image": torch.randn(len(lengths), 3, 64, 64, generator=torch.Generator().manual_seed(1)),
        "instruction": [text(words) for words, _ in lengths],
        "target": [text(words) for _, words in lengths],
        "question": ["Who?"] * len(lengths),
        "task": [f"{number:02}" for number in range(len(lengths))],
    }


UNLIKE = [(90, 12), (4, 1), (11, 0), (0, 3), (30, 2), (4, 7)]


def losses_and_gradients(model: InstructBlip, samples: dict[str, Any]) -> tuple[Any, Any]:
    model.zero_grad()
    output = model(samples)
    output["loss"].backward()
    return output, {name: parameter.grad for name, parameter in model.named_parameters()}
