"""The table of a ladder, and its figures as JSON Lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import typer

from ealign_plugin.files import atomic_write
from ealign_plugin.ladder.results import Result
from ealign_plugin.ladder.rungs import FIGURES, PUBLISHED_CIDER, SOURCE, Rung
from ealign_plugin.metrics.tables import format_table

LINES, TABLE = "results.jsonl", "ladder.txt"


@dataclass(frozen=True, slots=True)
class Column:
    """The rungs with one seed.

    Args:
        seed: ``run.seed`` of the trainings.
        rungs: All, in order.
        results: Those that are finished, by name; grows as they are.
    """

    seed: int
    rungs: Sequence[Rung]
    results: dict[str, Result]


def table_of(columns: Sequence[Column]) -> str:
    """One row a rung, in order: means over the seeds and standard deviations; dashes where it was not run."""
    rows = []
    for rungs in zip(*(column.rungs for column in columns), strict=True):
        rung = rungs[0]
        results = [column.results[rung.name] for column in columns if rung.name in column.results]
        row: dict[str, Any] = {"rung": rung.label, "context": rung.context, "seeds": len(results)}
        for key, name in {**{key: key for key in FIGURES}, "sentence_auc": "sentence AUC"}.items():
            row[name] = _cell([result.figures.get(key) for result in results])
        if "cider" in rung.published:
            row[PUBLISHED_CIDER] = rung.published["cider"] / 100
        rows.append(row)
    columns_of_table = ["rung", "context", "seeds", *FIGURES, "sentence AUC", PUBLISHED_CIDER]
    return format_table(rows, columns_of_table, decimals=2)


def _cell(values: Sequence[float | None]) -> str | float | None:
    """A figure of one seed, or mean ± standard deviation of several."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return next(iter(known), None)
    return f"{100 * mean(known):.2f} ± {100 * stdev(known):.2f}"


def write_table(columns: Sequence[Column], out: Path) -> None:
    """Print the table, and write it and the lines."""
    write_lines(columns, out)
    text = (
        f"{table_of(columns)}\n\nAll ×100; of several seeds mean ± standard deviation. Published: {SOURCE}, "
        "cited; figures of another data set or model are not comparable with it.\n"
    )
    atomic_write(out / TABLE, text.encode())
    typer.echo(f"\n{text}\nThe table is in {out / TABLE}, its figures are in {out / LINES}")


def write_lines(columns: Iterable[Column], out: Path) -> None:
    """Write ``results.jsonl``: a line for each seed and rung that is finished."""
    lines = [
        {
            "rung": rung.name,
            "label": rung.label,
            "seed": rung.config["run"]["seed"],
            "context": rung.context,
            "options": rung.options,
            "run": str(column.results[rung.name].run.relative_to(out)),
            "revision": column.results[rung.name].revision,
            "config_sha256": column.results[rung.name].config_sha256,
            "figures": column.results[rung.name].figures,
            "published": {key: value / 100 for key, value in rung.published.items()},
        }
        for column in columns
        for rung in column.rungs
        if rung.name in column.results
    ]
    atomic_write(out / LINES, json_lines(lines))


def json_lines(records: Iterable[Mapping[str, Any]]) -> bytes:
    """The records, one a line."""
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
