"""What a model costs before it is run: parameters, memory for each GPU, FLOPs for each example.

The model is built on the meta device from its shapes: no weight is read and no memory taken.

Memory, in bytes; T parameters are trained::

    weights       4 for a trained one; for a frozen one its type's 4 or 2, or 0.5625 in a linear layer of
                  4 bits (NF4, a float32 scale for each 64)
    copies        2·T under autocast, which keeps a half-precision copy of each trained weight
    gradients     4·T
    optimiser     8·T    AdamW's two means in float32
    buckets       4·T    where DDP sends gradients between GPUs
    gathered      two blocks' weights where they are sharded (one computes, the next is fetched)
    activations   see `activations`

The float32 weights are what others call master weights: with copies, gradients and means 18 bytes a trained
parameter, ZeRO's 16 (arXiv 1910.02054, section 3.1) with gradients in float32. Sharding (FSDP's full shard,
ZeRO stage 3) divides these four by the GPUs. Not counted: the CUDA context (0.5 to 1 GB) and fragmentation.

FLOPs of an example: a matrix multiplication of N weights costs 2·N for each token it reads, and attention
4·L·L'·d for queries L, keys L' and width d (arXiv 2001.08361, section 2.1; causal masks save nothing here).
The backward pass costs the same once for gradients of inputs, where anything before is trained, and once for
gradients of weights, where these are trained (attention: twice or not at all); gradient checkpointing costs a
forward of the language model's blocks more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from ealign_plugin.models.base import CONFIGS, NewsModel, shapes_only
from ealign_plugin.models.parts import PARTS, part_of
from ealign_plugin.models.weights import fetch, read_config

SHAPES = CONFIGS / "shapes.yaml"
STAND_IN = CONFIGS / "tokenizers" / "micro" / "tokenizer.json"

NF4_BYTES = 0.5 + 4 / 64
_FIELDS = (
    *("vision_config", "qformer_config", "text_config", "num_query_tokens"),
    *("vision_feature_layer", "vision_feature_select_strategy", "projector_hidden_act"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What an example makes the model read, in tokens.

    Args:
        patches: Of the image encoder, its class token included.
        queries: Image tokens of the language model.
        question: Of the Q-Former; 0 without one.
        prompt: Of the language model, without image tokens.
        target: What is learnt.
    """

    patches: int
    queries: int
    question: int
    prompt: int
    target: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Counts by part (vision, connector, llm, lora), bytes for each GPU, FLOPs of an example."""

    parameters: dict[str, int]
    trained: dict[str, int]
    memory: dict[str, int]
    flops: dict[str, int]
    reading: Reading

    def as_dict(self) -> dict[str, Any]:
        """For JSON, with totals."""
        values = asdict(self)
        for name in ("parameters", "trained", "memory", "flops"):
            values[name]["total"] = sum(values[name].values())
        return values


def estimate(
    model: nn.Module,
    reading: Reading,
    *,
    batch: int,
    amp: bool = False,
    gradient_checkpointing: bool = False,
    eager: bool = False,
    quantized: bool = False,
    gpus: int = 1,
    sharded: bool = False,
) -> Estimate:
    """Everything at once.

    Args:
        model: With ``PARTS`` and ``config``; what is trained requires gradients. See `on_meta`.
        reading: Of an example; the longest for the most memory.
        batch: Examples on each GPU.
        amp: Training runs under autocast in half precision.
        gradient_checkpointing: The language model's blocks keep their inputs only.
        eager: The language model keeps its attention matrices.
        quantized: The language model's linear layers are held in 4 bits.
        gpus: Number of GPUs.
        sharded: FSDP or ZeRO-3 instead of DDP.
    """
    total, trained = parameters(model)
    learnt = sum(trained.values())
    weights = sum(value.numel() * value.element_size() for value in model.parameters())
    if quantized:
        weights -= sum(value.numel() * value.element_size() for value in _linear_weights(model))
        weights += round(NF4_BYTES * sum(value.numel() for value in _linear_weights(model)))
    held = {"weights": weights, "copies": 2 * learnt * amp, "gradients": 4 * learnt, "optimiser": 8 * learnt}
    if sharded:
        held = {name: -(-value // gpus) for name, value in held.items()}
        held["gathered"] = 2 * _largest_block(model) * (gpus > 1)
    else:
        held["buckets"] = 4 * learnt * (gpus > 1)
    size = 2 if amp else model.language_model.get_input_embeddings().weight.element_size()
    held["activations"] = batch * activations(
        model, reading, size=size, gradient_checkpointing=gradient_checkpointing, eager=eager
    )
    return Estimate(
        parameters=total,
        trained=trained,
        memory=held,
        flops=flops(model, reading, gradient_checkpointing=gradient_checkpointing),
        reading=reading,
    )


# Shapes


def shape_of(model: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of transformers' config for the ``model`` section of a LAVIS config.

    They are those of the folder ``pretrained``, else of the section, else of the published model of that
    hub id.

    Raises:
        UserError: the folder or the hub gives no config of such a model.
    """
    kind = str(model["arch"]).removeprefix("ealign_")
    source = str(model.get("pretrained") or "")
    if not source or not Path(source).expanduser().is_dir():
        if "text_config" in model:
            return {"model_type": kind, **{name: model[name] for name in _FIELDS if name in model}}
        published = yaml.safe_load(SHAPES.read_text(encoding="utf-8"))
        if source in published:
            return published[source]
    return read_config(fetch(source, weights=False, key="model.pretrained"), {kind})


def on_meta(
    family: Callable[..., NewsModel],
    shape: Mapping[str, Any],
    *,
    trainable: str | None = None,
    lora: Mapping[str, Any] | None = None,
    **options: Any,
) -> NewsModel:
    """A model whose parameters are on the meta device, with a stand-in for its tokenizer.

    Args:
        family: Such as `InstructBlip`.
        shape: See `shape_of`.
        trainable: ``model.trainable`` of a config; None: everything.
        lora: ``model.lora`` of a config.
        options: Of `NewsModel`, such as ``dtype``.

    Raises:
        UserError: see `NewsModel` and `parts`.
    """
    with shapes_only():
        model: Any = family(config=shape, tokenizer=STAND_IN, **options)
    if not getattr(model.config.text_config, "scale_decoder_outputs", True):
        # transformers 5 ties every T5; Flan-T5's head is another than its embeddings (see weights.fill).
        head = model.language_model.get_output_embeddings()
        head.weight = nn.Parameter(head.weight.detach().clone())
    with torch.device("meta"):
        model.set_up({"trainable": trainable, "lora": lora})
    return model


def reading_of(config: Any, *, question: int, prompt: int, target: int) -> Reading:
    """Lengths of texts, and those of the image that follow from the config."""
    vision = config.vision_config
    patches = (vision.image_size // vision.patch_size) ** 2 + 1
    has_qformer = hasattr(config, "qformer_config")
    return Reading(
        patches=patches,
        queries=config.num_query_tokens if has_qformer else patches - 1,
        question=question if has_qformer else 0,
        prompt=prompt,
        target=target,
    )


def parameters(model: nn.Module) -> tuple[dict[str, int], dict[str, int]]:
    """Parameters by part, tied ones once: all, and those that require gradients."""
    total = dict.fromkeys(PARTS, 0)
    trained = dict.fromkeys(PARTS, 0)
    for name, value in model.named_parameters():
        part = part_of(model, name)
        total[part] += value.numel()
        trained[part] += value.numel() * value.requires_grad
    present = [part for part in PARTS if total[part]]
    return {part: total[part] for part in present}, {part: trained[part] for part in present}


def _linear_weights(model: Any) -> list[torch.Tensor]:
    """Of the language model, without its head and LoRA: what `quantize_language_model` holds in 4 bits."""
    head = model.language_model.get_output_embeddings()
    return [
        module.weight
        for name, module in model.language_model.named_modules()
        if isinstance(module, nn.Linear) and module is not head and ".lora_" not in name
    ]


def _largest_block(model: nn.Module) -> int:
    """Bytes of the largest layer of a stack, or of the largest embedding."""
    stacks = [child for module in model.modules() if isinstance(module, nn.ModuleList) for child in module]
    units = [*stacks, *(module for module in model.modules() if isinstance(module, nn.Embedding))]
    return max(sum(value.numel() * value.element_size() for value in unit.parameters()) for unit in units)


# FLOPs


def flops(model: Any, reading: Reading, *, gradient_checkpointing: bool = False) -> dict[str, int]:
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
        yield "llm", text.num_hidden_layers * 4 * (encoded + reading.target) ** 2 * _width(text)


def _width(text: Any) -> int:
    """Of all heads together."""
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return text.num_attention_heads * head


# Activations


def activations(
    model: Any, reading: Reading, *, size: int, gradient_checkpointing: bool = False, eager: bool = False
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
        keys = _width(text) * text.num_key_value_heads // heads
        width, inner = text.hidden_size, text.intermediate_size
        norms = 2 * (4 + size * trained) * width  # LLaMA's norms compute in float32
        products = 2 * _width(text) + 2 * keys + 3 * inner
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
