"""The table of a ladder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from ealign_plugin.errors import UserError
from ealign_plugin.files import atomic_write, read_json
from ealign_plugin.ladder.rungs import FIGURES, PUBLISHED_CIDER, SOURCE, Result, Rung
from ealign_plugin.metrics.tables import format_table


def figures_of(metrics: Path, rung: Rung) -> dict[str, Any]:
    """The figures of a run's test, fractions; `sentence_auc` is None where no sentence was judged.

    Raises:
        UserError: the file cannot be read, or holds none of the rung's context.
    """
    context = rung.config["run"]["contexts"][0]
    record = read_json(metrics, advice="run the rung again")
    try:
        test = record["test"]
        row = test["contexts"][context]
        figures = {key: row.get(key) for key in FIGURES}
        return figures | {"sentence_auc": (test.get("selection") or {}).get("sentence_auc")}
    except (KeyError, TypeError, AttributeError):
        raise UserError(
            f"{metrics}: no figures of the context {context!r} found, expected test.contexts.{context}; set "
            "run.test_splits, and run.task to ealign_news_captioning"
        ) from None


def table_of(rungs: Sequence[Rung], results: Mapping[str, Result]) -> str:
    """One row a rung, in order; dashes where it was not run."""
    rows = []
    for rung in rungs:
        row: dict[str, Any] = {"rung": rung.label, "context": rung.context}
        if rung.name in results:
            figures = results[rung.name].figures
            row |= {key: figures.get(key) for key in FIGURES}
            row["sentence AUC"] = figures.get("sentence_auc")
        if "cider" in rung.published:
            row[PUBLISHED_CIDER] = rung.published["cider"] / 100
        rows.append(row)
    columns = ["rung", "context", *FIGURES, "sentence AUC", PUBLISHED_CIDER]
    return format_table(rows, columns, decimals=2)


def write_table(rungs: Sequence[Rung], results: Mapping[str, Result], out: Path) -> None:
    """Print the table, and write ladder.txt and ladder.json."""
    text = (
        f"{table_of(rungs, results)}\n\nAll ×100. Published: {SOURCE}, cited; figures of another data set or "
        "model are not comparable with it.\n"
    )
    record = {
        "published": SOURCE,
        "rungs": [
            {
                "rung": rung.name,
                "label": rung.label,
                "context": rung.context,
                "run": str(results[rung.name].run.relative_to(out)) if rung.name in results else None,
                "figures": results[rung.name].figures if rung.name in results else None,
                "published": {key: value / 100 for key, value in rung.published.items()},
            }
            for rung in rungs
        ],
    }
    atomic_write(out / "ladder.json", as_json(record))
    atomic_write(out / "ladder.txt", text.encode())
    typer.echo(f"\n{text}\nThe table is in {out / 'ladder.txt'}")


def as_json(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode()
