"""Ranking metrics for sentence selection, and set F1 for entity selection.

Scores are any real numbers (probabilities, log-probabilities); only their order counts. Equal scores are
never ordered by luck: `auc` gives half a point for a tie, `average_precision` takes tied items together.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence

import numpy as np

from ealign_plugin.errors import UserError
from ealign_plugin.metrics.entities import EntityScores


def auc(scores: Sequence[float], labels: Sequence[bool]) -> float | None:
    """Area under the ROC curve: the chance that a positive stands above a negative, a tie counting half.

    Returns:
        A fraction; None where there is no positive or no negative.

    Raises:
        UserError: lengths that differ, or a score that is not a number.
    """
    values, positive = _checked(scores, labels)
    above, below = values[positive], np.sort(values[~positive])
    if not len(above) or not len(below):
        return None
    beaten = np.searchsorted(below, above, "left") + np.searchsorted(below, above, "right")
    return float(beaten.mean() / (2 * len(below)))


def average_precision(scores: Sequence[float], labels: Sequence[bool]) -> float | None:
    """Sum over the distinct scores, from high to low, of (rise of recall) x (precision down to there).

    Returns:
        A fraction; None where there is no positive.

    Raises:
        UserError: lengths that differ, or a score that is not a number.
    """
    values, positive = _checked(scores, labels)
    if not positive.any():
        return None
    order = np.argsort(-values)
    values, hits = values[order], np.cumsum(positive[order])
    last_of_tie = np.flatnonzero(np.append(values[1:] != values[:-1], True))
    hits = hits[last_of_tie]
    precision, rise = hits / (last_of_tie + 1), np.diff(hits, prepend=0) / hits[-1]
    return float(precision @ rise)


def mean_by_group(
    metric: Callable[[Sequence[float], Sequence[bool]], float | None],
    scores: Sequence[float],
    labels: Sequence[bool],
    groups: Sequence[Hashable],
) -> float | None:
    """Mean of `metric` over groups (a photo's sentences, say); groups where it is undefined do not count."""
    members: dict[Hashable, list[tuple[float, bool]]] = {}
    for score, label, group in zip(scores, labels, groups, strict=True):
        members.setdefault(group, []).append((score, label))
    values = [metric(*zip(*pairs, strict=True)) for pairs in members.values()]
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


def list_f1(
    predicted: Sequence[Iterable[Hashable]], wanted: Sequence[Iterable[Hashable]]
) -> tuple[float | None, float | None, float | None]:
    """Precision, recall and F1 of predicted lists: a set of items per photo, hits summed over photos.

    Items (names, numbers of sentences) are compared as they are; normalise them first. None as in
    `EntityScores`.

    Raises:
        UserError: different numbers of lists.
    """
    if len(predicted) != len(wanted):
        raise UserError(
            f"{len(predicted)} predicted lists but {len(wanted)} wanted lists: one each is expected"
        )
    pairs = [(set(p), set(w)) for p, w in zip(predicted, wanted, strict=True)]
    hits = sum(len(p & w) for p, w in pairs)
    scores = EntityScores(hits, sum(len(w) for _, w in pairs), hits, sum(len(p) for p, _ in pairs))
    return scores.precision, scores.recall, scores.f1


def _checked(scores: Sequence[float], labels: Sequence[bool]) -> tuple[np.ndarray, np.ndarray]:
    values, positive = np.asarray(scores, dtype=float), np.asarray(labels, dtype=bool)
    if values.shape != positive.shape:
        raise UserError(
            f"{len(values)} scores but {len(positive)} labels: one label is expected for each score"
        )
    if np.isnan(values).any():
        raise UserError(
            f"score {int(np.isnan(values).argmax())} of {len(values)} is not a number (NaN), so the scores "
            "have no order; has the model's loss become NaN?"
        )
    return values, positive
