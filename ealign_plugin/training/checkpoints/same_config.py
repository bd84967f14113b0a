"""Compares the config of a checkpoint with the one of the run that is to go on from it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from ealign_plugin.errors import UserError
from ealign_plugin.training.checkpoints.manifest import Checkpoint, versions

MAY_DIFFER = (
    *("model.attn_implementation", "model.batching", "model.compile", "model.gradient_checkpointing"),
    *("model.max_tokens", "model.padding_waste", "model.pretrained", "model.load_pretrained"),
    *("model.finetuned", "model.load_finetuned"),
    *(
        "datasets.*.build_info.*",
        "datasets.*.splits",
        "datasets.*.limit",
        "datasets.*.limit.*",
        "datasets.*.max_skipped",
        "datasets.*.recipe.selections",
    ),
    *("datasets.*.other_image", "datasets.*_processor.eval*"),
    "run.*",
)
"""Keys that a resumed run may change: how things are computed, where they are."""


NOT_REPORTED = (
    *("run.output_dir", "run.resume*", "run.device", "run.gpu", "run.rank", "run.world_size", "run.dist*"),
    *("run.log_freq", "run.evaluate", "run.num_workers"),
)
"""Keys whose change means nothing for the result."""


def check_config(checkpoint: Checkpoint, config: Mapping[str, Any]) -> list[str]:
    """Compare the config of a checkpoint with today's.

    Model and data must be the same, but for how they are computed and where they are (`MAY_DIFFER`).

    Args:
        checkpoint: Its manifest has the ``config``.
        config: Today's as plain JSON values: ``model``, ``datasets``, ``run``.

    Returns:
        Differences that do no harm, one line each: "run.init_lr: 0.001 when the checkpoint was saved, 0.01
        now".

    Raises:
        UserError: model or data differ; the first keys, what they were and are.
    """
    before, now = (dict(_leaves(json.loads(json.dumps(c)))) for c in (checkpoint.manifest["config"], config))
    keys = [
        key
        for key in {**before, **now}
        if before.get(key) != now.get(key) and not _matches(key, NOT_REPORTED)
    ]
    lines = {
        key: f"{key}: {_short(before.get(key))} when the checkpoint was saved, {_short(now.get(key))} now"
        for key in keys
    }
    # Another version may know keys that this one doesn't; they had their default then.
    same = checkpoint.manifest["versions"].get("ealign_plugin") == versions()["ealign_plugin"]
    wrong = [
        key for key in keys if not _matches(key, MAY_DIFFER) and (same or (key in before and key in now))
    ]
    if wrong:
        more = f" ({len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise UserError(
            f"{checkpoint.folder}: a checkpoint of another config: "
            f"{'; '.join(lines[key] for key in wrong[:3])}{more}; set them back to resume, or start anew "
            "from its weights (model.load_finetuned: true and "
            f"model.finetuned: {checkpoint.weights})"
        )
    return list(lines.values())


def _leaves(values: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key → value; lists are values, and what is empty is as good as missing."""
    if isinstance(values, dict):
        for name, value in values.items():
            yield from _leaves(value, f"{key}.{name}" if key else name)
    elif values not in (None, [], ""):
        yield key, values


def _matches(key: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def _short(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
