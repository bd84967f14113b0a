"""``ealign prepare``: a data set → annotated shards."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ealign_plugin.data.prepare.annotate import Job
from ealign_plugin.data.prepare.engines import ENGINES
from ealign_plugin.data.prepare.pipeline import SKIPPED_NAME
from ealign_plugin.data.prepare.pipeline import prepare as run
from ealign_plugin.data.readers import READERS
from ealign_plugin.data.shards.index import ShardIndex
from ealign_plugin.entities import DEFAULT_NER
from ealign_plugin.host.plugins import load_installed

_SOURCES = "\n\n".join(f"[bold]{name}[/bold]: {reader.files}" for name, reader in READERS.items())

HELP = f"""Read a data set, check its photos, annotate its articles, and write shards to train from.

Interrupted, the same command goes on after the last whole shard. The bytes depend on the source and the
options of the first group alone, not on engine or processes.

Sources and what PATH is:

{_SOURCES}

Examples:

ealign prepare goodnews data/goodnews --images data/goodnews/resized --out shards/goodnews

ealign prepare nytimes800k nytimes-2020-04-21.gz --images data/nyt --short-side 480 --out shards/nyt

ealign prepare jsonl my_news.jsonl --out shards/mine --processes 8
"""

_BYTES, _WORK = "What the shards hold", "How the work is done"


def prepare(
    source: Annotated[str, typer.Argument(help=f"Kind of the source: {', '.join(READERS)}.")],
    path: Annotated[str, typer.Argument(help="Its file, folder or URL (anything fsspec opens).")],
    out: Annotated[str, typer.Option(help="Folder or URL of the shards.", show_default=False)],
    images: Annotated[
        str | None,
        typer.Option(
            help="Folder or URL of the photos; where not given, the source's usual one.",
            rich_help_panel=_BYTES,
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Put all samples into this split. Where not given: what the source says, "
            "else 90/5/5 % train/val/test by hash of the article.",
            rich_help_panel=_BYTES,
        ),
    ] = None,
    short_side: Annotated[
        int | None,
        typer.Option(
            help="Shrink photos to so many pixels on their short side; not given: as they are.",
            rich_help_panel=_BYTES,
        ),
    ] = None,
    quality: Annotated[
        int, typer.Option(help="JPEG quality of photos that are encoded anew.", rich_help_panel=_BYTES)
    ] = 90,
    samples_per_shard: Annotated[
        int, typer.Option(help="Photos in a shard; articles stay whole.", rich_help_panel=_BYTES)
    ] = 500,
    ner: Annotated[
        str,
        typer.Option(
            help="spaCy model that finds sentences and names; auto takes the best one installed.",
            rich_help_panel=_BYTES,
        ),
    ] = DEFAULT_NER,
    require_entities: Annotated[
        bool,
        typer.Option(
            "--require-entities",
            help="Skip photos whose caption holds no name, instead of counting them.",
            rich_help_panel=_BYTES,
        ),
    ] = False,
    limit: Annotated[
        int | None, typer.Option(help="Read only the first so many records.", rich_help_panel=_BYTES)
    ] = None,
    processes: Annotated[
        int,
        typer.Option(
            help="Shards worked on at a time; 0: one per core, of this machine or of the cluster.",
            rich_help_panel=_WORK,
        ),
    ] = 0,
    engine: Annotated[
        str,
        typer.Option(
            help="local: processes of this machine; ray: a Ray cluster.",
            metavar="|".join(ENGINES),
            rich_help_panel=_WORK,
        ),
    ] = "local",
    max_skipped: Annotated[
        float,
        typer.Option(help="Largest share of records that may be skipped.", rich_help_panel=_WORK),
    ] = 0.05,
) -> None:
    load_installed()  # readers of other packages
    job = Job(
        source=source,
        location=path,
        out=out,
        images=images,
        split=split,
        short_side=short_side,
        quality=quality,
        samples_per_shard=samples_per_shard,
        ner=ner,
        require_entities=require_entities,
        limit=limit,
    )
    _report(run(job, engine=engine, processes=processes, max_skipped=max_skipped))


prepare.__doc__ = HELP


def _report(index: ShardIndex) -> None:
    console = Console()
    table = Table("split", "photos", "shards", "MB", title=str(index.folder), title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for split, rows in index.record["splits"].items():
        size = sum(row["bytes"] for row in rows) / 1e6
        table.add_row(split, f"{index.samples(split):,}", f"{len(rows):,}", f"{size:,.1f}")
    console.print(table)
    skipped = index.record.get("skipped", {})
    if skipped:
        table = Table("skipped because", "records", title=f"see {SKIPPED_NAME}", title_justify="left")
        table.columns[1].justify = "right"
        for cause, count in skipped.items():
            table.add_row(cause, f"{count:,}")
        console.print(table)
    without = index.record.get("captions_without_entities", 0)
    model = f"{index.ner['name']} {index.ner['version']}"
    console.print(f"Captions without any name: {without:,} (kept). Entities by {model}.")
    console.print(
        f"Train from it: data set ealign_news, build_info.images.storage: {index.folder}", soft_wrap=True
    )
