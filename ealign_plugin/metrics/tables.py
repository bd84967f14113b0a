"""Figures as a text table that reads well in a terminal and pastes into Markdown."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

Cell = str | float | None
"""What a cell of a table shows."""

HEADINGS = {
    **{f"bleu{n}": f"BLEU-{n}" for n in range(1, 5)},
    "rouge": "ROUGE-L",
    "cider": "CIDEr",
    "meteor": "METEOR",
    "type_token_ratio": "TTR",
}


_RATIOS = {"precision": "P", "recall": "R", "f1": "F1"}


PLAIN = frozenset({"words", "reference_words"})
"""Columns that hold no fraction: printed as they are, not times 100."""


def format_table(
    rows: Sequence[Mapping[str, Cell]],
    columns: Sequence[str],
    *,
    decimals: int = 1,
    headings: Mapping[str, str] | None = None,
    plain: Collection[str] = PLAIN,
) -> str:
    """Rows of figures as aligned text, one line a row.

    Fractions (floats) are printed times 100, as papers print them, except in ``plain`` columns; whole
    numbers and text as they are; a missing value or None as a dash::

        | context | BLEU-4 | METEOR | entity F1 |
        |---------|--------|--------|-----------|
        | head    |   10.9 |      - |      31.3 |

    Args:
        rows: One mapping a row, for example what `evaluate` returns.
        columns: Keys to print, in order; text stands left, figures right.
        decimals: Digits after the point.
        headings: Headings by key; a key without one gets that of `HEADINGS`, or its own words.
        plain: Columns that hold no fractions.
    """
    table = Table(box=box.MARKDOWN)
    for key in columns:
        text = any(isinstance(row.get(key), str) for row in rows)
        table.add_column((headings or {}).get(key) or heading(key), justify="left" if text else "right")
    for row in rows:
        table.add_row(*(_cell(row.get(key), decimals, 1 if key in plain else 100) for key in columns))
    # Far wider than any table: rich would otherwise break the lines at the terminal's width.
    console = Console(file=io.StringIO(), width=10_000, markup=False, emoji=False, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines() if line.strip())


def heading(key: str) -> str:
    """'person_f1' -> 'PERSON F1': labels as OntoNotes writes them."""
    label, _, ratio = key.rpartition("_")
    if label and ratio in _RATIOS:
        return f"{label if label == 'entity' else label.upper()} {_RATIOS[ratio]}"
    return HEADINGS.get(key, key.replace("_", " "))


def _cell(value: Cell, decimals: int, scale: int) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{scale * value:.{decimals}f}"
    return str(value)
