"""The figures of a run: ``log.txt`` while it goes on, ``metrics.json`` at its end."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ealign_plugin.distributed import rank
from ealign_plugin.files import atomic_write, cannot_write

LOG, METRICS = "log.txt", "metrics.json"


class RunningMeans:
    """Means of named scalars since the last reset.

    ``sums`` holds of each name its sum and how many values there were, as JSON values: a checkpoint holds
    them, so that a resumed run logs what it would have logged.

    Example:
        >>> means = RunningMeans()
        >>> means.add({"loss": 2.0})
        >>> means.add({"loss": 4.0, "tokens": 7.0})
        >>> means.means()
        {'loss': 3.0, 'tokens': 7.0}
    """

    def __init__(self, sums: Mapping[str, Sequence[float]] | None = None) -> None:
        self.sums: dict[str, list[float]] = {name: list(pair) for name, pair in (sums or {}).items()}

    def add(self, values: Mapping[str, float]) -> None:
        """Take the values of one batch into account."""
        for name, value in values.items():
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = [total + value, count + 1]

    def means(self) -> dict[str, float]:
        """Name → mean."""
        return {name: total / count for name, (total, count) in self.sums.items()}

    def reset(self) -> None:
        """Begin anew."""
        self.sums.clear()


class MetricLog:
    """``log.txt``: one JSON object a line, of what happened in which split after how many iterations.

    ::

        {"split": "step",  "iters": 50,  "lr": 0.0001, "loss": 3.1, ...}     every run.log_freq iterations
        {"split": "train", "iters": 100, "loss": 2.9, ...}                   the means of an inner epoch
        {"split": "val",   "iters": 100, "agg_metrics": 0.4, "best_iters": 100, ...}

    Of several processes only the first writes and keeps lines.

    Args:
        folder: The run's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[dict[str, Any]] = []

    def add(self, split: str, values: Mapping[str, Any]) -> None:
        """Append a line.

        Raises:
            UserError: the file cannot be written.
        """
        if rank():
            return
        line = {"split": split, **values}
        self.lines.append(line)
        path = self.folder / LOG
        try:
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise cannot_write(path, error, "make room there") from None

    def cut(self, iters: int, inner_epoch_ended: bool) -> None:
        """Remove what a killed run logged after its last checkpoint; it will be logged once more.

        Args:
            iters: Iterations that the checkpoint holds.
            inner_epoch_ended: Whether the inner epoch that they end was validated; else the lines of its end
                are still to come.
        """
        path = self.folder / LOG
        if rank() or not path.exists():
            return
        *lines, _ = path.read_text(encoding="utf-8").split("\n")
        kept = [line for line in map(json.loads, lines) if iters and line["iters"] <= iters]
        if not inner_epoch_ended:
            kept = [line for line in kept if line["split"] == "step" or line["iters"] < iters]
        self.lines = kept
        atomic_write(path, "".join(json.dumps(line) + "\n" for line in kept).encode())

    def write_metrics(self, *, best_iters: int, test: Mapping[str, Any], valid_splits: Sequence[str]) -> None:
        """Write ``metrics.json``.

        Args:
            best_iters: Iterations of the weights that were tested.
            test: What the task reports of the test.
            valid_splits: Whose lines are the validations.
        """
        if rank():
            return
        report = {
            "best_iters": best_iters,
            "test": test,
            "train": [line for line in self.lines if line["split"] == "train"],
            "validation": [line for line in self.lines if line["split"] in valid_splits],
        }
        atomic_write(self.folder / METRICS, (json.dumps(report, indent=1) + "\n").encode())
