"""Rows of tokens → padded batches of rows of like length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Tokens:
    """A prompt's token ids, and the target's, which alone are learnt."""

    prompt: list[int]
    target: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.prompt) + len(self.target)


class Batch(NamedTuple):
    """Padded rows: ``ids``, ``mask`` and ``labels`` are long [B, T]; labels are −100 but on targets."""

    ids: Tensor
    mask: Tensor
    labels: Tensor


def pad(rows: Sequence[Tokens], pad_id: int, device: torch.device, *, left: bool = False) -> Batch:
    """Stack rows to one batch.

    ::

        prompt target            ids        mask     labels (left=False)
        [5 6]  [7 2]             5 6 7 2    1 1 1 1   -100 -100    7    2
        [5]    [8]               5 8 0 0    1 1 0 0   -100    8 -100 -100

    Args:
        rows: At least one row.
        pad_id: Token that fills up.
        device: Where the tensors go.
        left: Fill up on the left (for generation) instead of on the right.
    """
    width = max(map(len, rows))
    ids, mask, labels = [], [], []
    for row in rows:
        gap = [0] * (width - len(row))
        fill = [pad_id] * len(gap)
        ignored = [-100] * len(row.prompt) + row.target
        if left:
            ids.append(fill + row.prompt + row.target)
            mask.append(gap + [1] * len(row))
            labels.append([-100] * len(gap) + ignored)
        else:
            ids.append(row.prompt + row.target + fill)
            mask.append([1] * len(row) + gap)
            labels.append(ignored + [-100] * len(gap))
    return Batch(*(torch.tensor(part, dtype=torch.long, device=device) for part in (ids, mask, labels)))


def by_length(lengths: Sequence[int], waste: float, most: int | None = None) -> list[list[int]]:
    """Split rows into groups of like length, longest first.

    >>> by_length([3, 10, 9, 3], waste=0.2)
    [[1, 2], [0, 3]]

    Args:
        lengths: Tokens of each row.
        waste: Largest share of padding in a group.
        most: Most rows in a group.

    Returns:
        Groups of row numbers; every row is in one.
    """
    groups: list[list[int]] = []
    total = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        width = lengths[groups[-1][0]] if groups else 0
        full = bool(groups) and len(groups[-1]) == most
        if not groups or full or total + lengths[index] < (1 - waste) * width * (len(groups[-1]) + 1):
            groups.append([])
            total = 0
        groups[-1].append(index)
        total += lengths[index]
    return groups
