"""Which batch of a training draws from which file of the model's own selections.

A training may write such a file every so many steps (``run.own_selections_from``). From which batch on it is
read is fixed in advance: a worker reads ahead, and what it draws must not depend on how far ahead it was::

    step            1600                    2000
    file            ▲ …-001600.jsonl        ▲ …-002000.jsonl
    batches drawn   ·····|··4··|··················|··4··|······    4 = what workers may have read ahead
    they read       labels     …-001600.jsonl           …-002000.jsonl
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshedSelections:
    """The files of one data set's stream, and when they are written and read.

    Args:
        folder: The run's.
        name: Of the data set.
        first: Step after which the first file is written; of several data sets each counts its own batches.
        every: Steps between files.
        photos: So many photos are selected for, in all processes together.
        batches_per_step: Batches of one step (``run.accum_grad_iters``).
        ahead: So many batches may have been drawn that no step has used yet.

    Example:
        >>> files = RefreshedSelections(folder=Path("run"), name="news", first=4, every=2, photos=9, ahead=3)
        >>> [files.due(batches) for batches in range(3, 8)]
        [None, 4, 4, 6, 6]
        >>> str(files.path_of(6)), str(files.path_of(7))
        ('None', 'run/selections-news-000004.jsonl')
    """

    folder: Path
    name: str
    first: int
    every: int
    photos: int
    batches_per_step: int = 1
    ahead: int = 0

    def due(self, batches: int) -> int | None:
        """The step whose file is the newest after so many batches; None: there is none yet."""
        step = batches // self.batches_per_step
        return None if step < self.first else step - (step - self.first) % self.every

    def path(self, step: int) -> Path:
        """The file that is written after this step."""
        return self.folder / f"selections-{self.name}-{step:06d}.jsonl"

    def path_of(self, batch: int) -> Path | None:
        """The file that the batch with this number is drawn from; None: there is none yet."""
        step = self.due(batch - self.ahead)
        return None if step is None else self.path(step)

    def still_read(self, batches: int) -> list[Path]:
        """The files that are there after so many batches, and that later ones are drawn from."""
        later = map(self.path_of, range(batches, batches + self.ahead + 1))
        return sorted({path for path in later if path is not None})
