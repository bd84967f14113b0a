"""What a checkpoint's header says of the model that it completes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ealign_plugin.errors import UserError
from ealign_plugin.models.trainable import Trained


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
        expected: `NewsModel.recipe` of the model to fill.

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
