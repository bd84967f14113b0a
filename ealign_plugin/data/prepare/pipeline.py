"""``ealign prepare``: a public data set → a folder of annotated shards.

::

    reader ─► plan ─► parts ─► engine: photos normalised, sentences and entities by spaCy, shard written
                                 │ one job a shard, in any number of processes
    index.json, skipped.jsonl ◄──┘ when all parts are done

Beside each finished shard stands a small report in ``OUT/.prepare``. Whoever starts again with the same
options passes over the parts that have one; when all are there, ``index.json`` is written and the reports go.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import Any

from tqdm import tqdm
from upath import UPath

from ealign_plugin.data.prepare.annotate import PROGRESS, Job, Result, report_path
from ealign_plugin.data.prepare.engines import ENGINES
from ealign_plugin.data.prepare.plan import Part, plan
from ealign_plugin.data.readers import READERS
from ealign_plugin.data.readers.source import ReadSample, Skipped, Source
from ealign_plugin.data.shards.index import INDEX_NAME, ShardIndex
from ealign_plugin.data.shards.write import write_index
from ealign_plugin.entities import load_ner
from ealign_plugin.errors import UserError
from ealign_plugin.files import PART, as_path, atomic_write, cannot_write, read_json
from ealign_plugin.news import SCHEMA_VERSION, SPLITS

SKIPPED_NAME = "skipped.jsonl"


def prepare(
    job: Job,
    *,
    engine: str = "local",
    processes: int = 0,
    max_skipped: float = 0.05,
    progress: bool = True,
) -> ShardIndex:
    """Make the shards, or finish what an interrupted call began.

    Args:
        job: What to make.
        engine: One of `ENGINES`; the bytes do not depend on it.
        processes: Shards that are worked on at a time, 0 for one per core; nor on this.
        max_skipped: Largest share of the source's records that may be skipped.
        progress: Show a progress bar.

    Raises:
        UserError: an impossible option; the source or the folder is wrong as a whole; too much was skipped.
    """
    job.check()
    if engine not in ENGINES:
        raise UserError(f"--engine: one of {', '.join(ENGINES)} was expected, found {engine!r}")
    if processes < 0 or not 0 <= max_skipped <= 1:
        raise UserError(
            "--processes: 0 or more, --max-skipped: a share from 0 to 1 were expected, "
            f"found {processes}, {max_skipped}"
        )
    recognizer = load_ner(job.ner)
    ner = {"name": recognizer.name, "version": recognizer.version}
    out = as_path(job.out)
    if found := _begin(out, job, ner):
        logging.info("%s: already prepared with these options; nothing to do", out)
        return found
    source = Source(job.location, images=job.images, split=job.split)
    tally = _Tally(max_skipped)
    with _bar(progress) as bar:

        def ticked(count: int) -> None:
            if source.share:
                bar.total = max(int(tally.planned / source.share), tally.planned)
            bar.update(count)

        parts = tally.parts(_records(job, source), job.samples_per_shard, recognizer.nlp.max_length)
        for result in _run(job, parts, out, ENGINES[engine], processes, ticked):
            tally.add(result)
    tally.finish()
    return _finish(out, job, ner, tally)


def _records(job: Job, source: Source) -> Iterator[ReadSample | Skipped]:
    for number, item in enumerate(READERS[job.source].read(source), 1):
        yield item
        if number == job.limit:
            break


def _run(
    job: Job,
    parts: Iterable[Part],
    out: UPath,
    engine: Callable[..., Iterator[Result]],
    processes: int,
    ticked: Callable[[int], None],
) -> Iterator[Result]:
    """The results of all parts in order; those of an interrupted call are read instead of made."""
    done: dict[str, Result] = {}
    order: list[str] = []

    def missing() -> Iterator[Part]:
        for part in parts:
            order.append(part.name)
            if (result := _made_before(out, part)) is not None:
                done[part.name] = result
                ticked(len(part.items))
            else:
                yield part

    given = 0

    def ready() -> Iterator[Result]:
        nonlocal given
        while given < len(order) and order[given] in done:
            yield done.pop(order[given])
            given += 1

    for result in engine(job, missing(), processes, ticked):
        done[result.name] = result
        yield from ready()
    yield from ready()


class _Tally:
    """What was planned, written and skipped so far, and when it is too much."""

    def __init__(self, max_skipped: float) -> None:
        self.max_skipped = max_skipped
        self.planned = self.records = self.without_entities = 0
        self.skipped: list[Skipped] = []
        self.causes: Counter[str] = Counter()
        self.rows: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}

    def parts(
        self, records: Iterable[ReadSample | Skipped], samples_per_shard: int, max_characters: int
    ) -> Iterator[Part]:
        for item in plan(records, samples_per_shard=samples_per_shard, max_characters=max_characters):
            if isinstance(item, Skipped):
                self._skip(item)
            else:
                self.planned += len(item.items)
                self.records += len(item.items)
                yield item

    def add(self, result: Result) -> None:
        if result.row:
            self.rows[result.split].append(result.row)
        self.without_entities += result.without_entities
        for item in result.skipped:
            self.records -= 1  # it was counted when it was planned
            self._skip(item)

    def _skip(self, item: Skipped) -> None:
        self.records += 1
        self.skipped.append(item)
        self.causes[item.cause] += 1
        if len(self.skipped) <= 5:
            logging.warning("skipped %s: %s%s", item.key, item.cause, item.detail and f" ({item.detail})")
        if len(self.skipped) > self.max_skipped * max(self.records, 1000):  # a bad beginning is no verdict
            raise self._too_many()

    def finish(self) -> None:
        """Raises:
        UserError: too much of the whole was skipped, or nothing is left.
        """
        if len(self.skipped) > self.max_skipped * self.records:
            raise self._too_many()
        if not any(self.rows.values()):
            raise UserError("the source has no sample that can be used; is it the right file or folder?")

    def _too_many(self) -> UserError:
        causes = "; ".join(f"{count} × {cause}" for cause, count in self.causes.most_common())
        first = self.skipped[0]
        return UserError(
            f"{len(self.skipped)} of {self.records} records were skipped, at most {self.max_skipped:.0%} may "
            f"be: {causes} (the first: {first.key}: {first.cause} {first.detail}); mend the source or raise "
            "--max-skipped; shards that are done are kept"
        )


def _begin(out: UPath, job: Job, ner: dict[str, str]) -> ShardIndex | None:
    """Look what the folder holds: the shards where they are what would be made, None where there is work.

    Raises:
        UserError: it holds something else, or cannot be written.
    """
    wanted = {"schema": SCHEMA_VERSION, "source": job.source, "ner": ner, "options": _options(job)}
    try:
        index, begun = _read_if_there(out / INDEX_NAME), _read_if_there(out / PROGRESS / "options.json")
        nothing_done = index is None and not any(out.glob("*.tar"))
        for name, record in ((INDEX_NAME, index), (PROGRESS, begun)):
            if record is not None and not nothing_done and (other := _difference(record, wanted)):
                raise UserError(
                    f"{out}: what is there was made with {other} ({name}); use the same options, or another "
                    "--out, or remove the folder"
                )
        if index is not None:
            return ShardIndex.load(out)
        if begun is None and out.is_dir() and any(out.iterdir()):
            raise UserError(f"{out}: the folder holds other files; choose an empty or a new one")
        if nothing_done:
            _clear(out / PROGRESS)
            atomic_write(out / PROGRESS / "options.json", json.dumps(wanted).encode())
        for left in [*out.glob(f".*{PART}"), *(out / PROGRESS).glob(f".*{PART}")]:
            left.unlink()  # of a process that was killed
    except OSError as error:
        raise cannot_write(out, error) from None
    return None


def _options(job: Job) -> dict[str, Any]:
    """The job's values beside those that the index names itself."""
    options = {key: value for key, value in asdict(job).items() if key not in ("source", "out", "ner")}
    options["location"] = str(as_path(job.location).absolute()) if "://" not in job.location else job.location
    return options


def _difference(record: dict[str, Any], wanted: dict[str, Any]) -> str:
    """Which value differs, in words; empty where all are equal."""
    for field, value in wanted.items():
        found = record.get(field)
        if isinstance(value, dict) and isinstance(found, dict):
            for key in value:
                if found.get(key) != value[key]:
                    return f"{key} {found.get(key)!r}, {value[key]!r} is wanted now"
        elif found != value:
            return f"{field} {found!r}, {value!r} is wanted now"
    return ""


def _read_if_there(path: UPath) -> dict[str, Any] | None:
    return read_json(path, advice="remove its folder or choose another --out") if path.is_file() else None


def _made_before(out: UPath, part: Part) -> Result | None:
    try:
        result = Result.from_json(json.loads(report_path(out, part).read_bytes()))
        whole = result.row is None or (out / part.name).stat().st_size == result.row["bytes"]
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None
    return result if whole else None


def _finish(out: UPath, job: Job, ner: dict[str, str], tally: _Tally) -> ShardIndex:
    # Sorted: which of two parts tells of its photos first is chance.
    lines = sorted(json.dumps(asdict(item)) + "\n" for item in tally.skipped)
    atomic_write(out / SKIPPED_NAME, "".join(lines).encode())
    write_index(
        out,
        {split: rows for split, rows in tally.rows.items() if rows},
        source=job.source,
        ner=ner,
        options=_options(job),
        report={
            "skipped": dict(sorted(tally.causes.items())),
            "captions_without_entities": tally.without_entities,
        },
    )
    _clear(out / PROGRESS)
    (out / PROGRESS).rmdir()
    return ShardIndex.load(out)


def _clear(folder: UPath) -> None:
    for path in [*folder.iterdir()] if folder.is_dir() else []:
        path.unlink()


def _bar(progress: bool) -> tqdm[None]:
    # Delayed: what ends at once needs no bar.
    return tqdm(desc="Preparing", unit="sample", disable=not progress, smoothing=0.05, delay=1)
