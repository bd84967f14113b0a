"""FLOPs of an example."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch import nn

from ealign_plugin.models.cost.shapes import Reading, parameters
from ealign_plugin.models.trainable import part_of

if TYPE_CHECKING:
    from ealign_plugin.models.base import NewsModel

# FLOPs


def flops(model: NewsModel, reading: Reading, *, gradient_checkpointing: bool = False) -> dict[str, int]:
    """FLOPs of one example: ``forward``, ``backward``, and ``recomputed`` by gradient checkpointing."""
    forward = backward = recomputed = 0
    _, trained = parameters(model)
    vision = trained.get("vision", 0) > 0
    connector = vision or trained.get("connector", 0) > 0
    upstream = {"vision": vision, "connector": connector, "llm": True, "lora": True}
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear | nn.Conv2d):
            continue
        part = part_of(model, name)
        cost = 2 * module.weight.numel() * tokens_read(name, reading)
        # What reads the image's features needs their gradients only where the encoder is trained.
        inputs = vision if _reads_patches(name) else upstream[part] and any(trained.values())
        if part == "vision":  # of its last layers LLaVA may read none
            inputs = module.weight.requires_grad and not isinstance(module, nn.Conv2d)
        forward += cost
        backward += cost * (inputs + module.weight.requires_grad)
        if part in ("llm", "lora") and not name.endswith("lm_head"):
            recomputed += cost
    for part, cost in _attention(model.config, reading):
        forward += cost
        needed = vision if part == "vision" else connector if part == "connector" else any(trained.values())
        backward += 2 * cost * needed
        recomputed += cost * (part == "llm")
    return {
        "forward": forward,
        "backward": backward,
        "recomputed": recomputed if gradient_checkpointing else 0,
    }


def tokens_read(name: str, reading: Reading) -> int:
    """How many tokens of an example a linear layer works on; layers have the names that transformers gives.

    >>> tokens_read("language_projection", Reading(patches=257, queries=32, question=9, prompt=80, target=20))
    32
    """
    encoded = reading.queries + reading.prompt
    if name.startswith("vision_"):
        return reading.patches - name.endswith("patch_embedding")
    if name.startswith("language_model."):
        if name.endswith("lm_head"):
            return reading.target
        if name.startswith("language_model.encoder.") or _is_cross_key(name):
            return encoded
        return reading.target if name.startswith("language_model.decoder.") else encoded + reading.target
    if not name.startswith("qformer."):
        return reading.queries
    if _reads_patches(name):
        return reading.patches
    if ".crossattention." in name or "_query." in name:
        return reading.queries
    text_only = ".attention." not in name
    return reading.question if text_only else reading.queries + reading.question


def _is_cross_key(name: str) -> bool:
    return ".EncDecAttention.k" in name or ".EncDecAttention.v" in name


def _reads_patches(name: str) -> bool:
    return ".crossattention." in name and name.endswith((".key", ".value"))


def _attention(config: Any, reading: Reading) -> Iterator[tuple[str, int]]:
    """Part and FLOPs of the products of queries, keys and values."""
    vision, text = config.vision_config, config.text_config
    yield "vision", vision.num_hidden_layers * 4 * reading.patches**2 * vision.hidden_size
    if (qformer := getattr(config, "qformer_config", None)) is not None:
        tokens, layers = reading.queries + reading.question, qformer.num_hidden_layers
        crossed = -(-layers // qformer.cross_attention_frequency)
        yield "connector", layers * 4 * tokens**2 * qformer.hidden_size
        yield "connector", crossed * 4 * reading.queries * reading.patches * qformer.hidden_size
    encoded = reading.queries + reading.prompt
    if text.is_encoder_decoder:
        width = text.num_heads * text.d_kv
        yield "llm", text.num_layers * 4 * encoded**2 * width
        yield "llm", text.num_decoder_layers * 4 * reading.target**2 * width
        yield "llm", text.num_decoder_layers * 4 * reading.target * encoded * width
    else:
        yield "llm", text.num_hidden_layers * 4 * (encoded + reading.target) ** 2 * attention_width(text)


def attention_width(text: Any) -> int:
    """Of all heads together."""
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return text.num_attention_heads * head
