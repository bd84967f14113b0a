"""Figures as a text table that reads well in a terminal and pastes into Markdown."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

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


def format_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, decimals: int = 1) -> str:
    """Rows of figures as aligned text, one line a row.

    Fractions (floats) are printed times 100, as papers print them, except in the columns of `PLAIN`; whole
    numbers and text as they are; a missing value or None as a dash::

        | context | BLEU-4 | METEOR | entity F1 |
        |---------|--------|--------|-----------|
        | head    |   10.9 |      - |      31.3 |

    Args:
        rows: One mapping a row, for example what `evaluate` returns.
        columns: Keys to print, in order; text stands left, figures right.
        decimals: Digits after the point.
    """
    table = Table(box=box.MARKDOWN)
    for key in columns:
        text = any(isinstance(row.get(key), str) for row in rows)
        table.add_column(_heading(key), justify="left" if text else "right")
    for row in rows:
        table.add_row(*(_cell(key, row.get(key), decimals) for key in columns))
    # Far wider than any table: rich would otherwise break the lines at the terminal's width.
    console = Console(file=io.StringIO(), width=10_000, markup=False, emoji=False, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines() if line.strip())


def _heading(key: str) -> str:
    """'person_f1' -> 'PERSON F1': labels as OntoNotes writes them."""
    label, _, ratio = key.rpartition("_")
    if label and ratio in _RATIOS:
        return f"{label if label == 'entity' else label.upper()} {_RATIOS[ratio]}"
    return HEADINGS.get(key, key.replace("_", " "))


def _cell(key: str, value: Any, decimals: int) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value if key in PLAIN else 100 * value:.{decimals}f}"
    return str(value)
