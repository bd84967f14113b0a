"""Thresholds of a yes/no answer to try, where yes is rarer than it was in training.

Training asks as many positive sentences as negative ones; an article holds far fewer positives, so P(yes) is
too high there. With the share π of positives the corrected probability q is::

    logit q = logit p + log(π / (1 - π))          q = 0.5 where p = 1 - π
"""

from __future__ import annotations

from collections.abc import Sequence

FEWEST, MOST = 0.5, 4.0
"""Sentences that the candidates select, as multiples of the number of positives."""


def corrected(probability: float, positives: float) -> float:
    """P(yes) of a model that was asked as many positives as negatives, for another share of positives.

    >>> corrected(0.5, 0.1), corrected(0.9, 0.1)
    (0.1, 0.5)
    """
    yes, no = probability * positives, (1 - probability) * (1 - positives)
    return round(yes / (yes + no), 12)


def share_of_positives(labels: Sequence[bool]) -> float:
    """The share of positives, never quite 0 or 1.

    >>> share_of_positives([True, False, False, False]), share_of_positives([False, False])
    (0.25, 0.25)

    Raises:
        ValueError: there are no sentences.
    """
    if not labels:
        raise ValueError("no sentences to count positives among: at least one is expected")
    least = 0.5 / len(labels)
    return min(max(sum(labels) / len(labels), least), 1 - least)


def candidate_thresholds(scores: Sequence[float], positives: float, count: int) -> list[float]:
    """Thresholds to try: first that of a corrected P(yes) of 0.5, then others from high to low.

    The others lie between two scores, so that the least difference between two machines changes nothing,
    and no two candidates select the same sentences.

    Args:
        scores: P(yes) of all sentences.
        positives: Share of positives.
        count: Most candidates, at least 1.

    >>> candidate_thresholds([0.51, 0.52, 0.99], 0.25, 7)
    [0.75, 0.515, 0.0]
    """
    ordered, different = sorted(scores, reverse=True), sorted(set(scores), reverse=True)
    thresholds = [1 - positives]
    selected = {sum(score >= 1 - positives for score in scores)}
    low, high = FEWEST * positives, min(1.0, MOST * positives)
    for number in range(count - 1):
        # The middles of equal parts, on a scale of ratios.
        share = low * (high / low) ** ((number + 0.5) / (count - 1))
        least = ordered[max(1, round(share * len(scores))) - 1]
        reached = sum(score >= least for score in scores)
        if reached not in selected:
            selected.add(reached)
            below = different[different.index(least) + 1 :]
            thresholds.append((least + below[0]) / 2 if below else 0.0)
    return thresholds
