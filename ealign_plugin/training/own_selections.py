"""The model's own selections, refreshed as it learns: files that the training itself writes and reads.

After each of the steps that ``run.own_selections_from`` and ``_every`` name, the model selects in the photos
that are read next, and from a batch that is fixed in advance on the streams draw a share of their selections
(``recipe.own_share``) from the file, see `ealign_plugin.data.streams.refreshed`. Checkpoints hold the files
that are still read, so that a resumed run draws what it would have drawn, wherever it goes on; files that are
no longer read are removed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ealign_plugin.alignment.own_selections import write_selections
from ealign_plugin.alignment.selection import Selection
from ealign_plugin.data.streams.batches import TrainingBatches
from ealign_plugin.data.streams.refreshed import RefreshedSelections
from ealign_plugin.data.streams.training import TrainingStream
from ealign_plugin.distributed import all_gather_object, rank, run_on_all_ranks, run_on_first_rank, world_size
from ealign_plugin.errors import UserError
from ealign_plugin.files import atomic_write
from ealign_plugin.news import NewsSample
from ealign_plugin.training.loaders import PREFETCHED
from ealign_plugin.training.options import TrainingOptions

Photos = Iterable[tuple[list[NewsSample], Tensor]]
"""Batches of samples and their photos [B, 3, H, W]."""

Select = Callable[[str, Photos], list[tuple[NewsSample, Selection]]]
"""Name of a data set, photos of it → what the model selects in them. Collective."""


@dataclass
class SelectionRefresh:
    """Writes the files of a run when they are due; all processes call its methods together.

    Args:
        batches: The training's; its streams say which photos are read next.
        files: Name of a data set → its files.
        select: What the model selects; None: the run's task cannot say it.
        batch_size: Photos that are handed to it together.

    Raises:
        UserError: there are files to write, and nothing selects.
    """

    batches: TrainingBatches
    files: Mapping[str, RefreshedSelections]
    select: Select | None
    batch_size: int = 8

    def __post_init__(self) -> None:
        if self.files and self.select is None:
            raise UserError("run.own_selections_from: set, but the task selects nothing; set it to null")
        self._written = {name: self._due(name) for name in self.files}

    def after_step(self) -> None:
        """Write what is due now.

        Raises:
            UserError: a photo cannot be read, or the file cannot be written.
        """
        for name, files in self.files.items():
            step = self._due(name)
            if step is not None and step != self._written[name]:
                self._write(name, files, step)
                self._written[name] = step

    def _due(self, name: str) -> int | None:
        return self.files[name].due(self.batches.delivered(name))

    def _write(self, name: str, files: RefreshedSelections, step: int) -> None:
        start = time.time()
        samples = self.batches.upcoming(name, -(-files.photos // world_size()), files.ahead)
        select = self.select
        assert select is not None
        mine = run_on_all_ranks(lambda: select(name, stacked(samples, self.batch_size)))
        found = [pair for part in all_gather_object(mine) for pair in part]

        def write() -> None:
            write_selections(files.path(step), f"step {step}", found)
            read = {files.path(step), *files.still_read(self.batches.delivered(name))}
            for path in set(files.folder.glob(f"selections-{name}-*.jsonl")) - read:
                path.unlink(missing_ok=True)

        run_on_first_rank(write)
        if rank() == 0:
            chosen = sum(len(selection.sentences) for _, selection in found)
            logging.info(
                "After step %d the model selected %.1f sentences in each of %d photos that are read next, "
                "in %.0f s: %s",
                *(step, chosen / max(1, len(found)), len(found), time.time() - start, files.path(step)),
            )

    def still_read(self) -> dict[str, bytes]:
        """Name → content of the files that later batches are drawn from, for a checkpoint."""
        return {path.name: path.read_bytes() for path in self._paths()}

    def restore(self, checkpoint: Path) -> None:
        """Go on where the batches stand now; files of the checkpoint's folder join those of the run.

        Raises:
            UserError: they cannot be written.
        """
        self.__post_init__()

        def copy() -> None:
            for path in self._paths():
                if not path.exists():
                    atomic_write(path, (checkpoint / path.name).read_bytes())

        run_on_first_rank(copy)

    def _paths(self) -> list[Path]:
        return [
            path
            for name, files in self.files.items()
            for path in files.still_read(self.batches.delivered(name))
        ]


def stacked(samples: Iterator[tuple[NewsSample, Tensor]], size: int) -> Photos:
    """Samples with their photos [3, H, W], so many at a time."""
    while batch := list(islice(samples, size)):
        yield [sample for sample, _ in batch], torch.stack([image for _, image in batch])


def selection_files(
    loaders: Mapping[str, DataLoader[Any]], options: TrainingOptions, folder: Path
) -> dict[str, RefreshedSelections]:
    """The files that a run writes of its model's own selections; its streams will draw from them.

    To be called before the loaders start, whose workers are copies of this process.

    Args:
        loaders: Name → loader of a training data set; foreign ones are left alone.
        options: Of the run.
        folder: The run's.

    Returns:
        By data set; none where the run does not ask for it.

    Raises:
        UserError: no data set can draw from them, or one counts other batches.
    """
    files: dict[str, RefreshedSelections] = {}
    if options.own_selections_from is None:
        return files
    for name, loader in loaders.items():
        stream = loader.dataset
        if not isinstance(stream, TrainingStream):
            continue
        check_batch_size(name, stream.mixer.batch_size, loader.batch_size)
        files[name] = RefreshedSelections(
            folder=folder,
            name=name,
            first=options.own_selections_from,
            every=options.own_selections_every,
            photos=options.own_selections_photos,
            batches_per_step=options.accum_grad_iters,
            # A step of several data sets ends up to so many batches of one after its file is due.
            ahead=PREFETCHED * loader.num_workers + options.accum_grad_iters - 1,
        )
        stream.draw_from(files[name])
    if not files:
        raise UserError(
            "run.own_selections_from: set, but no training data set of this package draws contexts; set it "
            "to null"
        )
    return files


def check_batch_size(name: str, of_mix: int, of_run: int | None) -> None:
    """Refuse a data set whose mix counts other batches than the run's steps do.

    Raises:
        UserError: the two differ.
    """
    if of_mix != of_run:
        raise UserError(
            f"datasets.{name}.batch_size: found {of_mix} beside run.own_selections_from, expected "
            f"run.batch_size_train, {of_run}; set it to null"
        )
