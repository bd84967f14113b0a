"""Models whose answers and captions are unlike each other, and prompts that share their beginning."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from ealign_plugin.models import InstructBlip, Llava
from ealign_plugin.models.base import NewsModel
from ealign_plugin.models.batching import Tokens, pad
from ealign_plugin.models.forwards import embed_rows

FAMILIES: dict[str, tuple[type[NewsModel], dict[str, Any]]] = {
    "instructblip": (InstructBlip, {}),
    "grouped heads": (InstructBlip, {"text_config": {"num_key_value_heads": 2}}),
    "packed": (InstructBlip, {"batching": "packed"}),
    "llava": (Llava, {}),
    "llava, grouped heads": (Llava, {"text_config": {"num_key_value_heads": 1}}),
    "eager": (Llava, {"batching": "groups", "attn_implementation": "eager"}),
}
PROMPTS = [  # ids after the image tokens; of these the first three are the same in all
    [1, 30, 31, 40, 41],
    [1, 30, 31, 50],
    [1, 30, 31, 40, 41, 60, 61, 62, 63, 64, 65, 66],
    [1, 30, 31, 50],
    [1, 30, 31, *range(100, 140)],
]


@cache
def model_of(family: str) -> NewsModel:
    """Two layers, and weights so large that answers and captions are unlike each other."""
    kind, changes = FAMILIES[family]
    config = OmegaConf.load(kind.default_config_path("micro")).model
    small = {"text_config": {"num_hidden_layers": 2}}
    torch.manual_seed(0)
    model = kind.from_config(OmegaConf.merge(config, small, changes)).eval()
    for parameter in model.language_model.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(std=0.1)
    return model


def image_tokens(model: NewsModel, images: int = 1) -> Tensor:
    size, width = 5, model.config.text_config.hidden_size
    return torch.randn(images, size, width, generator=torch.Generator().manual_seed(1))


@contextmanager
def tokens_of(model: NewsModel) -> Iterator[list[tuple[int, ...]]]:
    """Rows and tokens of each forward of the decoder."""
    sizes: list[tuple[int, ...]] = []
    decoder = model.language_model.get_decoder()
    handle = decoder.layers[0].register_forward_pre_hook(
        lambda _, args, options: sizes.append((args[0] if args else options["hidden_states"]).shape[:2]),
        with_kwargs=True,
    )
    try:
        yield sizes
    finally:
        handle.remove()


def options(model: NewsModel, **more: Any) -> dict[str, Any]:
    tokenizer = model.tokenizer
    ends = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    return {"do_sample": False, "num_beams": 1, "max_new_tokens": 12} | ends | more


def prompts_of(model: NewsModel, rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    """As `NewsModel.generate` makes them: padding stands between image and text."""
    batch = pad([Tokens(row) for row in rows], 0, torch.device("cpu"), left=True)
    return embed_rows(model, image_tokens(model, len(rows)), batch.ids, batch.mask)
