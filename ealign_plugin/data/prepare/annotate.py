"""A part of a data set → one annotated shard: photos normalised, sentences and entities by spaCy, packed.

This is the work that `engines` spreads over processes; nothing in it depends on other parts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from upath import UPath

from ealign_plugin.data.prepare.plan import Part
from ealign_plugin.data.readers import READERS
from ealign_plugin.data.readers.source import ReadSample, Skipped
from ealign_plugin.data.shards.write import write_shard
from ealign_plugin.entities import DEFAULT_NER, load_ner
from ealign_plugin.errors import UserError
from ealign_plugin.files import as_path, atomic_write
from ealign_plugin.images import normalised
from ealign_plugin.news import NewsSample

MAX_IMAGE_BYTES = 100_000_000
"""Larger files are not even read."""


PROGRESS = ".prepare"
"""Folder of the reports, below the shards' folder."""


_REMOTE_READERS = 8  # photos fetched at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What the bytes of the shards depend on.

    Args:
        source: Name of the reader, one of `READERS`.
        location: Its file, folder or URL.
        out: Folder or fsspec URL of the shards.
        images: Folder or URL of the photos; the reader's default where None.
        split: Split of all samples; what the source says where None.
        short_side: Photos are made smaller to so many pixels on their short side; as they are where None.
        quality: JPEG quality of photos that are encoded anew.
        samples_per_shard: A shard is closed after so many samples, at the end of an article.
        ner: The spaCy model.
        require_entities: Skip samples whose caption holds no entity.
        limit: Read only the first so many records of the source.
    """

    source: str
    location: str
    out: str
    images: str | None = None
    split: str | None = None
    short_side: int | None = None
    quality: int = 90
    samples_per_shard: int = 500
    ner: str = DEFAULT_NER
    require_entities: bool = False
    limit: int | None = None

    def check(self) -> None:
        """Raises:
        UserError: a value outside its range.
        """
        if self.source not in READERS:
            raise UserError(f"source: one of {', '.join(READERS)} was expected, found {self.source!r}")
        for name, low, high in (
            ("short_side", 16, 10_000),
            ("quality", 1, 95),
            ("samples_per_shard", 1, 100_000),
            ("limit", 1, 10**12),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                option = "--" + name.replace("_", "-")
                raise UserError(f"{option}: a number from {low} to {high} was expected, found {value}")


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a part: the shard's row of the index, and what was skipped.

    ``row`` is None where no sample was left; ``without_entities`` counts the shard's captions without any.
    """

    name: str
    split: str
    row: dict[str, Any] | None
    skipped: list[Skipped]
    without_entities: int

    def to_json(self) -> dict[str, Any]:
        """As JSON values; `from_json` is its inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Result:
        """Read what `to_json` wrote."""
        return cls(**{**record, "skipped": [Skipped(**item) for item in record["skipped"]]})


class ShardMaker:
    """Makes shards out of parts; holds the NER model, so there is one in each process.

    Args:
        job: What to make.
        tick: Called after each sample.
    """

    def __init__(self, job: Job, tick: Callable[[], None] = lambda: None) -> None:
        self.job, self.tick = job, tick
        self.out = as_path(job.out)
        self.recognizer = load_ner(job.ner)

    def __call__(self, part: Part) -> Result:
        """Write the part's shard, then its report."""
        skipped: list[Skipped] = []
        without_entities = 0
        samples: list[tuple[NewsSample, bytes]] = []
        kept = []
        # Photos first: an article whose photos are all broken need not be annotated.
        for item, photo in zip(part.items, self._photos(part), strict=True):
            if isinstance(photo, Skipped):
                skipped.append(photo)
                self.tick()
            else:
                kept.append((item.sample, photo))
        annotated = self.recognizer.annotate(sample for sample, _ in kept)
        for sample, (_, photo) in zip(annotated, kept, strict=True):
            if not sample.caption_entities and self.job.require_entities:
                skipped.append(Skipped(sample.key, "caption without entities", sample.caption[:80]))
            else:
                without_entities += not sample.caption_entities
                samples.append((sample, photo))
            self.tick()
        row = write_shard(samples, self.out, part.name) if samples else None
        result = Result(part.name, part.split, row, skipped, without_entities)
        atomic_write(report_path(self.out, part), json.dumps(result.to_json()).encode())
        return result

    def _photos(self, part: Part) -> Iterator[bytes | Skipped]:
        if all(isinstance(item.image, Path) for item in part.items):
            return map(self._photo, part.items)
        with ThreadPoolExecutor(_REMOTE_READERS) as pool:  # a network's answer takes longer than a picture
            return iter(list(pool.map(self._photo, part.items)))

    def _photo(self, item: ReadSample) -> bytes | Skipped:
        key = item.sample.key
        try:
            size = item.image.stat().st_size
            if size and size > MAX_IMAGE_BYTES:
                return Skipped(key, "photo's file too large", f"{size:,} bytes")
            content = item.image.read_bytes()
        except FileNotFoundError:
            return Skipped(key, "photo missing", str(item.image))
        except Exception as error:  # file systems of fsspec raise what their libraries raise
            return Skipped(key, "photo cannot be read", f"{item.image}: {error}")
        try:
            return normalised(content, key, short_side=self.job.short_side, quality=self.job.quality)
        except UserError as error:
            return Skipped(key, "photo broken, too large or no picture", str(error).removeprefix(f"{key}: "))


def report_path(out: UPath, part: Part) -> UPath:
    """Where the `Result` of a finished part stands until all are."""
    return out / PROGRESS / f"{part.name}.json"
