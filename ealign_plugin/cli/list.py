"""``ealign list``: what is registered, also by plugins, and what each option of a run means."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ealign_plugin.errors import UserError
from ealign_plugin.host.compat import check_host, import_lavis
from ealign_plugin.host.plugins import load_installed, load_modules
from ealign_plugin.validation import unknown

KINDS = ("tasks", "contexts", "controls", "metrics", "datasets", "models", "options")


def list_registered(
    kind: Annotated[str, typer.Argument(metavar="|".join(KINDS), show_default=False, help="What to list.")],
    key: Annotated[
        str | None,
        typer.Argument(metavar="KEY", show_default=False, help="Of options: this one, or those below it."),
    ] = None,
    plugins: Annotated[
        list[str] | None,
        typer.Option("--plugin", metavar="MODULE", help="Import this module first; repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: a list of objects.")] = False,
) -> None:
    """Print what is registered here and by plugins: tasks, contexts, metrics, data sets, models, options.

    \b
    Examples:
      ealign list contexts
      ealign list options
      ealign list options run.context_words
      ealign list tasks --plugin my_package.tasks --json
    """
    if kind not in KINDS:
        raise UserError(unknown("list", kind, KINDS, what="kind"))
    if key is not None and kind != "options":
        raise UserError(f"list {kind}: a KEY, {key!r}, found; only `ealign list options` takes one")
    check_host()
    import_lavis()
    load_installed()
    load_modules(plugins or [])
    from ealign_plugin.cli.registered_names import KINDS as ROWS

    rows = ROWS[kind](key) if kind == "options" else ROWS[kind]()
    if as_json:
        typer.echo(json.dumps(rows, indent=1, ensure_ascii=False))
    elif kind != "options":
        print_table(rows)
    elif len(rows) == 1:
        print_one(rows[0])
    else:
        print_options(rows)


def print_table(rows: list[dict[str, str]]) -> None:
    """A table that fits the terminal: names stay whole, long texts are broken, none is cut."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for number, name in enumerate(rows[0] if rows else ()):
        table.add_column(name, overflow="fold", no_wrap=number == 0)
    for row in rows:
        table.add_row(*(Text(value) for value in row.values()))
    Console(highlight=False).print(table)


def print_options(rows: list[dict[str, str]]) -> None:
    """A table for each section, whose name is left out of the keys."""
    console = Console(highlight=False)
    sections = dict.fromkeys(section_of(row["key"]) for row in rows)
    for section in sections:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        table.add_column(section, no_wrap=True)
        table.add_column("meaning; default; range", overflow="fold")
        for row in rows:
            if section_of(row["key"]) == section:
                values = [f"default {row['default']}" if row["default"] else "no default", row["range"]]
                text = Text(f"{row['help']}\n" if row["help"] else "")
                text.append("; ".join(filter(None, values)), style="dim")
                table.add_row(row["key"].removeprefix(f"{section}."), text)
        console.print(table)
        console.print()


def section_of(key: str) -> str:
    """'run' of run.max_iters, 'datasets.ealign_news' of datasets.ealign_news.seed."""
    parts = key.split(".")
    return ".".join(parts[:2]) if parts[0] == "datasets" else parts[0]


def print_one(row: dict[str, str]) -> None:
    """A single option, a line for each thing that is to be said of it."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in row.items():
        table.add_row(name, Text(value))
    Console(highlight=False).print(table)
