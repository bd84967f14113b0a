"""Checkpoints of training runs: what their header says of the model that they complete, and reading one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ealign_plugin.errors import UserError
from ealign_plugin.models.trainable import Trained
from ealign_plugin.models.weights.headers import Header, open_safetensors, read_header
from ealign_plugin.models.weights.mismatch import refuse_mismatch, unlike_shapes

if TYPE_CHECKING:
    from ealign_plugin.models.base import NewsModel


def checkpoint_metadata(*, arch: str, base: str, trained: Trained) -> dict[str, str]:
    """What a checkpoint's safetensors header says of the model that it completes.

    Args:
        arch: The registered name, such as ``ealign_instructblip``.
        base: Where the other weights come from: a model type, a hub id or a folder's name (no path: a
            checkpoint may travel).
        trained: What `set_trainable` returned.
    """
    lora = asdict(trained.lora) if trained.lora else None
    return {
        "arch": arch,
        "base": base,
        "trainable": "+".join(trained.parts),
        "lora": json.dumps(lora, sort_keys=True),
    }


def check_metadata(path: str | Path, found: Mapping[str, str] | None, expected: Mapping[str, str]) -> None:
    """Refuse a checkpoint of another recipe before its weights are read.

    LoRA's dropout may differ: it isn't part of what was learnt. A file without this metadata passes; its
    names and shapes remain to be checked.

    Args:
        path: The checkpoint, for the message.
        found: Its safetensors metadata.
        expected: `NewsModel.identity` of the model to fill.

    Raises:
        UserError: architecture, base weights, trained parts or LoRA differ.
    """
    keys = {
        "arch": "model.arch",
        "base": "the base weights",
        "trainable": "model.trainable",
        "reads": "what the image tokens read besides the image (model.qformer_text)",
    }
    for name, key in keys.items():
        if name in expected and (found or {}).get(name, expected[name]) != expected[name]:
            raise UserError(
                f"{path}: a checkpoint of another recipe: {key} is {expected[name]!r} here and was "
                f"{(found or {})[name]!r} when it was written; use the same"
            )
    here, there = (_lora_of(values) for values in (expected, found or expected))
    for name, value in here.items():
        if name != "dropout" and there.get(name, value) != value:
            raise UserError(
                f"{path}: a checkpoint of another recipe: model.lora.{name} is {value!r} here and was "
                f"{there[name]!r} when it was written; use the same"
            )


def _lora_of(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The options of LoRA; a header that isn't ours says nothing."""
    try:
        values = json.loads(metadata.get("lora", "null"))
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def check_fit(model: NewsModel, header: Header, where: str) -> None:
    """Refuse a checkpoint that doesn't complete this model, by its header alone.

    Args:
        model: After `NewsModel.set_up`; works on the meta device too.
        header: Of the checkpoint.
        where: The file, for the message.

    Raises:
        UserError: it was written for another architecture or another choice of trained parts, or lacks
            weights, or has others.
    """
    if model.identity:
        check_metadata(where, header.metadata, model.identity)
    own = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    refuse_mismatch(
        where,
        missing=sorted(set(model.trainable_state()) - set(header.shapes)),
        unknown=sorted(set(header.shapes) - set(own)),
        reshaped=[
            unlike_shapes(name, shape, own[name])
            for name, shape in header.shapes.items()
            if name in own and shape != own[name]
        ],
        hint="use the model.model_type it was trained with",
    )


def load_checkpoint(model: NewsModel, path: str | Path) -> None:
    """Fill a model from a safetensors file that a training run wrote; it is unchanged where that fails.

    Raises:
        UserError: the file is missing, is none, or belongs to another model or size.
    """
    file = Path(path)
    if not file.is_file():
        raise UserError(f"checkpoint {str(path)!r}: no such file; give the path of a .safetensors file")
    check_fit(model, read_header(file), str(file))
    with open_safetensors(file) as opened:
        weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    model.load_state_dict(weights, strict=False)
