"""A model's shape and the length of its examples, without weights or memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from ealign_plugin.models.base import NewsModel
from ealign_plugin.models.families import FAMILIES
from ealign_plugin.models.meta import build_on_meta, set_up_on_meta
from ealign_plugin.models.section import CONFIGS, values
from ealign_plugin.models.trainable import PARTS, part_of
from ealign_plugin.models.weights.hub import fetch, read_config

SHAPES = CONFIGS / "shapes.yaml"


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
            return {"model_type": kind, **values(model, FAMILIES[model["arch"]].SHAPE)}
        published = yaml.safe_load(SHAPES.read_text(encoding="utf-8"))
        if source in published:
            return published[source]
    return read_config(fetch(source, weights=False, key="model.pretrained"), {kind})


def on_meta(
    family: type[NewsModel],
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
        UserError: see `NewsModel` and `set_trainable`.
    """
    model = build_on_meta(family, options, shape)
    if not getattr(model.config.text_config, "scale_decoder_outputs", True):
        # transformers 5 ties every T5; Flan-T5's head is another than its embeddings (see `copy_weights`).
        head = model.language_model.get_output_embeddings()
        head.weight = nn.Parameter(head.weight.detach().clone())
    set_up_on_meta(model, {"trainable": trainable, "lora": lora})
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
