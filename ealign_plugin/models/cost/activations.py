"""What an example's forward pass keeps for the backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ealign_plugin.models.cost.flops import attention_width
from ealign_plugin.models.cost.shapes import Reading, parameters

if TYPE_CHECKING:
    from ealign_plugin.models.base import NewsModel

# Activations


def activations(
    model: NewsModel,
    reading: Reading,
    *,
    size: int,
    gradient_checkpointing: bool = False,
    eager: bool = False,
) -> int:
    """Bytes that one example's forward pass keeps for the backward pass.

    Counted is what transformers' modules save: inputs of trained linear layers, inputs of norms and of
    activation functions, factors of products, queries, keys and values, and attention matrices where
    attention is not fused. Of a part in which no gradient flows nothing is kept. After arXiv 2205.05198
    (section 4), with LLaMA's block in the place of GPT's.

    Args:
        model: See `estimate`.
        reading: See `estimate`.
        size: Bytes of an element.
        gradient_checkpointing: See `estimate`.
        eager: See `estimate`.
    """
    config = model.config
    _, trained = parameters(model)
    if not any(trained.values()):
        return 0
    elements = 0
    if trained.get("vision"):
        elements += _vision_elements(config.vision_config, reading)
    if trained.get("vision") or trained.get("connector"):
        elements += _connector_elements(config, reading)
    llm, lora = bool(trained.get("llm")), bool(trained.get("lora"))
    blocks = list(_blocks(config.text_config, reading, size, llm, lora, eager))
    if gradient_checkpointing:
        kept = sum(layers * inputs for layers, inputs, _ in blocks) + max(each for _, _, each in blocks)
    else:
        kept = sum(layers * each for layers, _, each in blocks)
    # Logits, their float32 copy and their log-softmax.
    logits = reading.target * config.text_config.vocab_size * (size + 8)
    return size * elements + kept + logits


def _vision_elements(vision: Any, reading: Reading) -> int:
    width, inner = vision.hidden_size, vision.intermediate_size
    matrices = vision.num_attention_heads * reading.patches**2
    return vision.num_hidden_layers * (reading.patches * (8 * width + 2 * inner) + matrices)


def _connector_elements(config: Any, reading: Reading) -> int:
    if (qformer := getattr(config, "qformer_config", None)) is None:
        return reading.queries * (config.vision_config.hidden_size + 2 * config.text_config.hidden_size)
    width, inner, heads = qformer.hidden_size, qformer.intermediate_size, qformer.num_attention_heads
    tokens, layers = reading.queries + reading.question, qformer.num_hidden_layers
    own = tokens * (8 * width + 2 * inner) + 2 * heads * tokens**2
    across = (
        4 * reading.queries * width
        + 2 * reading.patches * width
        + 2 * heads * reading.queries * reading.patches
    )
    return layers * own + -(-layers // qformer.cross_attention_frequency) * across


def _blocks(
    text: Any, reading: Reading, size: int, trained: bool, lora: bool, eager: bool
) -> Iterator[tuple[int, int, int]]:
    """Of each stack of blocks: their number, the bytes of a block's inputs and of all that it keeps."""
    encoded = reading.queries + reading.prompt
    if not text.is_encoder_decoder:
        tokens = encoded + reading.target
        heads = text.num_attention_heads
        keys = attention_width(text) * text.num_key_value_heads // heads
        width, inner = text.hidden_size, text.intermediate_size
        norms = 2 * (4 + size * trained) * width  # LLaMA's norms compute in float32
        products = 2 * attention_width(text) + 2 * keys + 3 * inner
        inputs = (3 * width + inner) * trained
        matrices = 2 * heads * tokens**2 * eager
        # Each of LoRA's layers drops out a copy of its input, and keeps that and the mask.
        copies = (6 * width + inner) * (size + 1) * lora
        each = tokens * (norms + size * (products + inputs) + copies) + size * matrices
        yield text.num_hidden_layers, size * tokens * width, each
        return
    width, inner, heads = text.d_model, text.d_ff, text.num_heads
    own = 2 * 4 * width + size * (4 * heads * text.d_kv + 3 * inner + (4 * width + inner) * trained)
    own += (6 * width + inner) * (size + 1) * lora
    for layers, tokens, others in (
        (text.num_layers, encoded, 0),
        (text.num_decoder_layers, reading.target, encoded),
    ):
        across = 2 * heads * text.d_kv * (tokens + others) + 2 * heads * tokens * others if others else 0
        # T5 keeps its attention matrices, before and after dropout.
        each = tokens * own + size * (2 * heads * tokens**2 + across)
        yield layers, size * tokens * width, each
