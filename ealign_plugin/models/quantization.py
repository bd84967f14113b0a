"""4-bit weights of a frozen language model: the one file that meets bitsandbytes (0.43 and later).

Of bitsandbytes it uses ``nn.Linear4bit`` and ``nn.Params4bit``, both public; the test of their arguments runs
where the package is installed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ealign_plugin.errors import UserError
from ealign_plugin.models.lora import mark_as_4bit
from ealign_plugin.models.trainable import parse_trainable


def quantize_language_model(model: nn.Module, kind: str, trainable: str) -> None:
    """Hold the frozen language model's linear layers in 4 bits (QLoRA, arXiv 2305.14314).

    Call it after the weights are in and before `set_trainable`; they are rounded when the model is moved to
    the GPU. Output layer and embeddings stay as they are. Activations are computed in bfloat16 where the GPU
    has it, else in float16.

    Args:
        model: A model with ``language_model``.
        kind: ``nf4``.
        trainable: ``model.trainable``: the language model's own weights must stay frozen.

    Raises:
        UserError: another kind, a language model that is trained, no GPU, or no bitsandbytes.
    """
    if kind != "nf4":
        raise UserError(f"model.quantize: {kind!r} found; 'nf4' or null expected")
    if "llm" in parse_trainable(trainable):
        raise UserError(
            f"model.quantize: 'nf4' found beside model.trainable {trainable!r}; weights of 4 bits cannot be "
            "trained, use lora or connector"
        )
    if not torch.cuda.is_available():
        raise UserError("model.quantize: 'nf4' found, which needs a GPU; set it to null on this machine")
    try:
        import bitsandbytes as bnb
    except ImportError:
        raise UserError(
            "model.quantize: 'nf4' needs the package bitsandbytes, which is missing; "
            "pip install 'ealign-plugin[quantize]', or set it to null"
        ) from None

    compute = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    language_model: Any = model.language_model
    output = language_model.get_output_embeddings()
    linear = [
        (name, module)
        for name, module in language_model.named_modules()
        if isinstance(module, nn.Linear) and module is not output
    ]
    for name, module in linear:
        small = bnb.nn.Linear4bit(
            module.in_features,
            module.out_features,
            bias=module.bias is not None,
            compute_dtype=compute,
            quant_type="nf4",
        )
        small.weight = bnb.nn.Params4bit(module.weight.data, requires_grad=False, quant_type="nf4")
        small.bias = module.bias
        parent, _, last = name.rpartition(".")
        setattr(language_model.get_submodule(parent), last, small)
    mark_as_4bit(language_model)
