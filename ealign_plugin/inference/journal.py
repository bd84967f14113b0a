"""The records of an evaluation, on disk as they are made, so that an interrupted one continues.

::

    <run folder>/evaluation-test/        gone when the evaluation is complete
        rank0.jsonl                      one file a process: a header, then one line a batch
            {"identity": {"weights": …, "run": …, "samples": …}}
            [{"index": 0, "caption": …}, {"index": 2, …}]
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ealign_plugin.files import atomic_write, cannot_write

Record = dict[str, Any]


class Journal:
    """The records of one evaluation.

    Args:
        folder: Where its files are, and nothing else; shared by all processes.
        rank: This process.
        identity: What must be the same for records to be used again, as JSON values.
    """

    def __init__(self, folder: Path, rank: int, identity: Mapping[str, Any]) -> None:
        self.folder, self.rank = folder, rank
        self.identity = json.loads(json.dumps(identity))
        self._started = False

    def read(self) -> list[Record]:
        """The records of all processes; those of another identity count as none."""
        records: list[Record] = []
        for path in sorted(self.folder.glob("rank*.jsonl")):
            header, *batches = _whole_lines(path) or [None]
            if header == {"identity": self.identity}:
                records += [record for batch in batches for record in batch]
            else:
                logging.warning("%s: of another evaluation, and so not used again", path)
        return records

    def add(self, records: Sequence[Record]) -> None:
        """Append the records of a batch: all of them or none.

        Raises:
            UserError: they cannot be written.
        """
        path = self.folder / f"rank{self.rank}.jsonl"
        try:
            if not self._started:
                self._start(path)
                self._started = True
            with path.open("a", encoding="utf-8") as file:
                file.write(_line(list(records)))
        except OSError as error:
            advice = "make room there; the same command then goes on from the records that are written"
            raise cannot_write(path, error, advice) from None

    def _start(self, path: Path) -> None:
        """Header, and the whole lines of this evaluation that are there already."""
        self.folder.mkdir(parents=True, exist_ok=True)
        header, *batches = (_whole_lines(path) if path.exists() else []) or [None]
        kept = batches if header == {"identity": self.identity} else []
        atomic_write(path, "".join(map(_line, [{"identity": self.identity}, *kept])).encode())

    def remove(self) -> None:
        """Nothing is left of it."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.folder)


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"


def _whole_lines(path: Path) -> list[Any]:
    """The JSON values of the lines that end; the last may have been cut off."""
    *lines, _ = path.read_bytes().split(b"\n")
    try:
        return [json.loads(line) for line in lines]
    except ValueError:
        logging.warning("%s: it is no JSON Lines, and so not used again", path)
        return []
