"""The loss of a batch: cross entropy of the target tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ealign_plugin.models.batching import Tokens
from ealign_plugin.models.forwards import forward_groups, target_logits
from ealign_plugin.models.image_tokens import image_tokens_of

if TYPE_CHECKING:
    from ealign_plugin.models.base import NewsModel


def loss_of(model: NewsModel, samples: Mapping[str, Any]) -> dict[str, Tensor]:
    """See `NewsModel.forward`."""
    images = image_tokens_of(model, samples)
    rows = samples.get("rows") or rows_of(model, samples)
    # Sums stay float32 under autocast, where the image tokens are of half precision.
    sums = torch.zeros(len(rows), device=images.device)
    counts = torch.zeros_like(sums)
    for group in forward_groups(model, rows, len(model.before) + images.shape[1], model.max_tokens):
        logits, labels, owner = target_logits(model, images[group], [rows[i] for i in group])
        losses = F.cross_entropy(logits.float(), labels, reduction="none")
        index = torch.tensor(group, device=images.device)
        sums = sums.index_add(0, index[owner], losses)
        counts = counts.index_add(0, index[owner], torch.ones_like(losses))
    if model.loss_reduction == "token":
        loss, weight = sums.sum() / counts.sum(), counts.sum()
    else:
        loss, weight = (sums / counts).mean(), counts.new_tensor(len(rows))
    tokens = counts.new_tensor(sum(len(model.before) + len(row) for row in rows))
    output = {"loss": loss, "weight": weight, "tokens": tokens}
    tasks = samples.get("task") or ["caption"] * len(rows)
    for task in sorted(set(tasks)):
        own = torch.tensor([t == task for t in tasks], device=images.device)
        output[f"loss_{task}"] = (sums[own].sum() / counts[own].sum()).detach()
    return output


def rows_of(model: NewsModel, samples: Mapping[str, Any]) -> list[Tokens]:
    """What the language model reads and learns of a batch: its ``rows``. Any process can make them."""
    prompts, targets = model.prompts(samples["instruction"]), model.targets(samples["target"])
    return [Tokens(prompt, target) for prompt, target in zip(prompts, targets, strict=True)]
