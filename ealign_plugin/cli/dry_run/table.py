"""The table of a dry run, and how numbers and names are written in it."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

Rows = list[tuple[str, str]]
"""A label, empty where the row goes on with the one above, and what is said."""


def print_plan(title: str, rows: Rows) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in rows:
        table.add_row(Text(label), Text(text))
    console = Console(highlight=False, markup=False)
    console.print(f"{title}: what the run would do\n")
    console.print(table)
    console.print("\nNothing was run; leave out --dry-run to start.")


def in_millions(count: int) -> str:
    return f"{count / 1e6:,.1f}"


def format_bytes(count: float) -> str:
    """'3.5 MiB', '26.1 GiB'"""
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"


def count_in_words(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"
