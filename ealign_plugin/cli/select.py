"""``ealign select``: a trained model's selections for photos of a training, to train another one with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ealign_plugin.errors import UserError
from ealign_plugin.files import as_path
from ealign_plugin.news import ALL_SPLITS
from ealign_plugin.validation import unknown

if TYPE_CHECKING:
    from ealign_plugin.data.streams.evaluation import EvaluationSamples


def select(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a run, or a checkpoint.", show_default=False)],
    shards: Annotated[str, typer.Argument(help="Folder of shards, or its URL.", show_default=False)],
    out: Annotated[Path, typer.Option(help="New file.", show_default=False)],
    split: Annotated[str, typer.Option(help="Of the shards: train, val or test.")] = "train",
    half: Annotated[
        int | None, typer.Option(min=0, max=1, help="Only this half of the articles; left out: both.")
    ] = None,
    photos: Annotated[int | None, typer.Option(min=1, help="Only the first so many; left out: all.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Photos that are read together.")] = 16,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read photos; 0: none.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
    plugins: Annotated[
        list[str] | None,
        typer.Option("--plugin", metavar="MODULE", help="Import this module first; repeatable."),
    ] = None,
) -> None:
    """Write what a model selects from articles in pass 1: sentences with their scores, and names.

    A recipe then takes a share of its selections from the file (recipe.selections, recipe.own_share): a
    training on the mistakes that the model really makes.

    \b
    Examples:
      ealign select output/.../2026-11-23_14-05-09 shards/goodnews --out own.jsonl

    \b
    Cross-fitted: each half of the articles by a model that was trained on the other one
    (datasets.ealign_goodnews.half=0 and =1 in two runs):
      ealign select output/half0 shards/goodnews --half 1 --out of_half1.jsonl
      ealign select output/half1 shards/goodnews --half 0 --out of_half0.jsonl
      cat of_half0.jsonl of_half1.jsonl > own.jsonl
    """
    if split not in ALL_SPLITS:
        raise UserError(unknown("--split", split, ALL_SPLITS, "split"))
    if out.exists():
        raise UserError(f"--out {out}: exists already, a new file expected; remove it or name another one")
    from tqdm import tqdm

    from ealign_plugin.alignment.own_selections import write_selections
    from ealign_plugin.data.shards.index import ShardIndex
    from ealign_plugin.data.streams.evaluation import EvaluationSamples
    from ealign_plugin.inference.captioner import NewsCaptioner
    from ealign_plugin.inference.own_selections import readable, select_all
    from ealign_plugin.inference.two_pass import TwoPasses
    from ealign_plugin.training.loaders import evaluation_loader

    index = ShardIndex.load(as_path(shards))
    if split not in index.shards:
        raise UserError(f"--split: {split!r} found, {shards} holds {', '.join(index.shards)}")
    captioner = NewsCaptioner.from_checkpoint(checkpoint, device=device, plugins=plugins or ())
    samples = EvaluationSamples(
        index, split, image_processor=captioner.image_processor, wording=captioner.wording, limit=photos
    )
    if half is not None:
        samples.leave_out(n for n in range(len(samples)) if is_of_half(samples, n, 1 - half))
    loader = evaluation_loader(samples, batch_size=batch_size, workers=workers)
    passes = TwoPasses(captioner.model, captioner.wording, captioner.options)
    found = list(select_all(passes, readable(tqdm(loader, "Pass 1", unit="batch"))))
    if not found:
        raise UserError(f"{shards}: no photo of {split!r} was read; give another split or half")
    write_selections(out, str(checkpoint), found)
    chosen = sum(len(selection.sentences) for _, selection in found)
    Console().print(
        f"{out}: {len(found):,} photos, {chosen / len(found):.2f} sentences each",
        soft_wrap=True,
        highlight=False,
    )


def is_of_half(samples: EvaluationSamples, number: int, half: int) -> bool:
    """Is the article of this sample in that half? False where it cannot be read."""
    from ealign_plugin.alignment.own_selections import half_of

    try:
        return half_of(samples.sample(number)) == half
    except UserError:  # reported where its photo is read
        return False
