"""Figures made of counts of each photo: 95 % intervals, differences from the main context, groups of people.

Beside a figure ``people_right`` of a row stand in metrics.json::

    people_right_low, people_right_high               its interval, articles resampled
    people_right_minus_refined, ..._low, ..._high     paired difference from the main context, interval

and, where ``run.subsets`` asks for them, ``people_right_<group>`` and ``person_f1_<group>`` with the same
endings, and ``photos_<group>``: so many photos show people of the group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ealign_plugin.inference.records import Row
from ealign_plugin.metrics.bootstrap import ClusterResamples, Figure, f1, interval, ratio
from ealign_plugin.metrics.entities import all_named, entity_scores
from ealign_plugin.metrics.protocols import Protocol
from ealign_plugin.metrics.subsets import SUBSETS, TrainingNames, people_right_counts, person_f1_counts
from ealign_plugin.news import Entity

WITH_INTERVALS = ("people_right", "entity_f1", "cider")
"""Figures of all photos that get an interval, where they are measured."""

SUBSET_FIGURES = ("people_right", "person_f1")
"""Figures of each group of people."""


@dataclass(frozen=True, slots=True)
class _Counts:
    """Of one figure: columns of each photo, and what their sums make."""

    by_photo: Sequence[Sequence[float]]
    figure: Figure

    def value(self) -> float | None:
        value = float(self.figure(np.asarray(self.by_photo, dtype=np.float64).sum(axis=0)))
        return None if np.isnan(value) else value


def add_intervals(
    figures: Mapping[str, dict[str, Any]],
    rows: Mapping[str, Sequence[Row]],
    main: str,
    protocol: Protocol,
    training: TrainingNames | None = None,
) -> int:
    """Write intervals, differences, and figures of groups of people into the figures of each row.

    Args:
        figures: By row of the table; changed.
        rows: The same rows, a `Row` a photo, measured by `caption_figures`; the same photos in all.
        main: The row that the others are compared with.
        protocol: How entities are compared.
        training: The names that the training held; None: no groups of people.

    Returns:
        The number of articles. A single one tells no interval.
    """
    resamples = ClusterResamples([row.sample.article for row in rows[main]])
    drawn: dict[str, dict[str, NDArray[np.float64]]] = {}
    for name in [main, *(name for name in rows if name != main)]:
        counts = _counts(figures[name], rows[name], protocol)
        for key, one in _subset_counts(rows[name], protocol, training).items():
            counts[key] = one
            figures[name][key] = one.value()
            if key.startswith("people_right_"):
                group = key.removeprefix("people_right_")
                figures[name][f"photos_{group}"] = int(sum(photo[1] for photo in one.by_photo))
        if resamples.clusters < 2:
            continue
        drawn[name] = {key: resamples.values(one.by_photo, one.figure) for key, one in counts.items()}
        for key, values in drawn[name].items():
            _write(figures[name], key, values)
            if name == main or key not in drawn[main]:
                continue
            own, other = figures[name][key], figures[main][key]
            if own is not None and other is not None:
                figures[name][f"{key}_minus_{main}"] = own - other
                _write(figures[name], f"{key}_minus_{main}", values - drawn[main][key])
    return resamples.clusters


def _write(figures: dict[str, Any], key: str, values: NDArray[np.float64]) -> None:
    if (bounds := interval(values)) is not None:
        figures[f"{key}_low"], figures[f"{key}_high"] = bounds


def _counts(figures: Mapping[str, Any], rows: Sequence[Row], protocol: Protocol) -> dict[str, _Counts]:
    counts = {
        "people_right": _Counts([_right(row) for row in rows], ratio),
        "entity_f1": _Counts([_hits(row, protocol) for row in rows], f1),
        "cider": _Counts([(row.metrics["cider"] or 0.0, 1) for row in rows], ratio),
    }
    return {key: counts[key] for key in WITH_INTERVALS if figures.get(key) is not None}


def _right(row: Row) -> tuple[float, int]:
    right = all_named([row.sample.caption_entities], [row.entities])
    return (0, 0) if right is None else (right, 1)


def _hits(row: Row, protocol: Protocol) -> tuple[int, int, int, int]:
    scores = entity_scores(
        [row.sample.caption_entities],
        [row.entities],
        match_label=protocol.match_label,
        fold=protocol.fold,
    )
    return scores.reference_hits, scores.reference_count, scores.candidate_hits, scores.candidate_count


def _subset_counts(
    rows: Sequence[Row], protocol: Protocol, training: TrainingNames | None
) -> dict[str, _Counts]:
    """Of the groups that some of the photos show."""
    if training is None:
        return {}
    counts: dict[str, _Counts] = {}
    for group, rule in SUBSETS.items():
        belongs = partial(rule, training)
        pairs: list[tuple[Sequence[Entity], Sequence[Entity]]] = [
            (row.sample.caption_entities, row.entities) for row in rows
        ]
        right = [people_right_counts(*pair, belongs) for pair in pairs]
        if any(counted for _, counted in right):
            hits = [person_f1_counts(*pair, belongs, protocol) for pair in pairs]
            counts[f"people_right_{group}"] = _Counts(right, ratio)
            counts[f"person_f1_{group}"] = _Counts(hits, f1)
    return counts
