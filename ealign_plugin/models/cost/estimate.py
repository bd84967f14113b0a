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

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ealign_plugin.models.cost.activations import activations
from ealign_plugin.models.cost.flops import flops
from ealign_plugin.models.cost.shapes import Reading, on_meta, parameters, reading_of, shape_of
from ealign_plugin.models.families import FAMILIES
from ealign_plugin.models.section import plain, values

if TYPE_CHECKING:
    from ealign_plugin.models.base import NewsModel

NF4_BYTES = 0.5 + 4 / 64

OPTIONS = ("max_txt_len", "max_output_txt_len", "max_question_len", "dtype", "vision_dtype", "qformer_text")
"""Of a model's options: those that change what it costs, or that it checks against its shape."""


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


def estimate_config(
    section: Mapping[str, Any],
    run: Mapping[str, Any],
    *,
    processes: int = 1,
    sharded: bool | None = None,
    prompt_tokens: int | None = None,
    target_tokens: int | None = None,
    model: NewsModel | None = None,
) -> Estimate:
    """What the run of a config needs, each example as long as the model's limits let it be.

    Args:
        section: ``model``, defaults included.
        run: ``run``: ``batch_size_train`` (1 where it is missing), ``amp`` and ``parallel`` are read.
        processes: Number of GPUs.
        sharded: FSDP or ZeRO-3 instead of DDP; None: as ``run.parallel`` says.
        prompt_tokens: Of an example, instead of ``max_txt_len``.
        target_tokens: Of an example, instead of ``max_output_txt_len``.
        model: The section's model on the meta device after its set-up, where there is one already; else it
            is built from its shape alone, and of a hub's model at most ``config.json`` is fetched.

    Raises:
        UserError: no such family; no config of such a model; or an option is impossible.
    """
    section = plain(section)
    if model is None:
        model = on_meta(
            FAMILIES.get(section.get("arch"), "model.arch"),
            shape_of(section),
            trainable=section.get("trainable"),
            lora=section.get("lora"),
            **values(section, OPTIONS),
        )
    reading = reading_of(
        model.config,
        question=getattr(model, "max_question_len", 0),
        prompt=len(model.before) + (prompt_tokens or model.max_txt_len),
        target=target_tokens or model.max_output_txt_len,
    )
    return estimate(
        model,
        reading,
        batch=int(run.get("batch_size_train") or 1),
        amp=run.get("amp") not in (None, False, "false"),
        gradient_checkpointing=bool(section.get("gradient_checkpointing")),
        eager=section.get("attn_implementation") == "eager",
        quantized=bool(section.get("quantize")),
        gpus=processes,
        sharded=run.get("parallel") == "fsdp" if sharded is None else sharded,
    )


def estimate(
    model: NewsModel,
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
        model: What is trained requires gradients. See `on_meta`.
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


def _linear_weights(model: NewsModel) -> list[torch.Tensor]:
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
