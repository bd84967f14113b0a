"""``ealign inspect``: what stands in a folder of shards, as a text table, JSON and an HTML page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from ealign_plugin.data.inspection.figures import inspect_shards, verify_shards
from ealign_plugin.data.inspection.page import page
from ealign_plugin.data.inspection.rows import (
    SUMMARY,
    bad_samples,
    distributions,
    entity_types,
    leak_notes,
    leaks,
    overview,
    parts,
    photo_sizes,
    printable,
)
from ealign_plugin.data.shards.index import ShardIndex
from ealign_plugin.errors import UserError
from ealign_plugin.files import atomic_write

WIDTH = 100
EXAMPLES_IN_TEXT = 3


def inspect(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Folder of shards; a path or an fsspec URL.")],
    other: Annotated[
        str | None, typer.Option(metavar="DIR2", help="Second folder: its figures, and what both share.")
    ] = None,
    words: Annotated[
        str, typer.Option(metavar="N,N,…", help="Tell the share of caption entities in the first N words.")
    ] = "50,100,200,500",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Read only the first so many samples of each split.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all figures as JSON.")
    ] = None,
    html_file: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page with plots and samples.")
    ] = None,
    no_photos: Annotated[
        bool, typer.Option("--no-photos", help="Do not open photos: faster, without their sizes and looks.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="First compare every shard with its sha256 in index.json.")
    ] = False,
) -> None:
    """Count what stands in shards: lengths, entities, what could be copied, photo sizes, leaks.

    \b
    Examples:
      ealign inspect shards/goodnews
      ealign inspect shards/goodnews --html goodnews.html --json goodnews.json
      ealign inspect shards/goodnews --other shards/nytimes800k --no-photos
    """
    first_words = parse_words(words)
    for option, file in (("--json", json_file), ("--html", html_file)):
        if file is not None and file.is_dir():  # reported now, not after an hour of reading
            raise UserError(f"{option} {file}: this is a folder, the name of a file was expected")
    index = ShardIndex.load(folder)
    second = ShardIndex.load(other) if other is not None else None
    # Error messages and the other output stay apart: this is what was asked for.
    out = Console(markup=False, emoji=False, highlight=False)
    out.width = min(out.width, WIDTH) if out.is_terminal else WIDTH
    if verify:
        for one in (index, second) if second else (index,):
            out.print(f"{verify_shards(one)} shards of {one.folder} have the sha256 of index.json")
    result = inspect_shards(index, second, first_words=first_words, limit=limit, photos=not no_photos)
    print_text(result, out)
    if json_file is not None:
        atomic_write(json_file, (json.dumps(result, indent=1) + "\n").encode())
    if html_file is not None:
        atomic_write(html_file, page(result, index))


def parse_words(text: str) -> list[int]:
    """'50,100' -> [50, 100].

    Raises:
        UserError: something else than whole numbers from 1 on.
    """
    try:
        found = sorted({int(part) for part in text.split(",")})
    except ValueError:
        found = []
    if not found or found[0] < 1:
        raise UserError(f"--words {text!r}: numbers of words from 1 on were expected, such as 50,100,200")
    return found


def print_text(result: Mapping[str, Any], out: Console) -> None:
    """Print the figures of one set or two, and what is shared."""
    for name in ("set", "other"):
        if name in result:
            figures = result[name]
            ner = figures["ner"]
            out.print(
                printable(
                    f"{figures['folder']}: source {figures['source'] or 'unknown'}, "
                    f"entities by {ner['name']} {ner['version']}"
                )
            )
            _print_set(figures, out)
    headings, *rows = leaks(result)
    _print_table(out, headings, rows)
    for line, examples in leak_notes(result):
        out.print(line)
        for one, other in examples[:EXAMPLES_IN_TEXT]:
            out.print(f"    {one} = {other}")


def _print_set(figures: Mapping[str, Any], out: Console) -> None:
    _print_table(out, ("", *parts(figures)), overview(figures))
    _print_table(out, ("", "split", *SUMMARY), distributions(figures), texts=2)
    headings = ("entities of type", "in captions", "in articles", "captions' in article")
    _print_table(out, headings, entity_types(figures))
    _print_table(out, ("photo size", "photos", "share"), photo_sizes(figures))
    _print_table(out, ("left out", "because"), bad_samples(figures), texts=2)


def _print_table(
    out: Console, headings: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1
) -> None:
    """A table whose first columns are texts and whose others are numbers; nothing where it has no rows."""
    if rows:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for number, heading in enumerate(headings):
            table.add_column(heading, justify="left" if number < texts else "right", overflow="fold")
        for row in rows:
            table.add_row(*row)
        out.print(table)
        out.print()
