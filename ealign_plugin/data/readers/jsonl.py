"""JSON Lines, for any other source: one photo a line, ``.gz`` or plain.

::

    {"id": "a_0", "image": "photos/a_0.jpg", "caption": "Ana Ruiz in Oslo.", "split": "train",
     "headline": "Storm", "article": ["First.", "Second."], "image_position": 1, "published": "2024-05-01"}

``id``, ``image``, ``caption`` and ``article`` are needed. ``image`` is a path below the file's folder (or
``--images``), or a URL. ``article`` is a text, one paragraph a line, or a list of paragraphs.
``image_position`` counts these paragraphs: the photo stands before that one, or at the end. ``split`` is by
hash of the article where neither it nor the file's name tells. ``article_id`` is a hash of the article where
it is not given; lines of one article should follow one another. ``entities`` (of any form) is kept as
``source_entities``, other fields under the names that they have.
"""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from functools import partial
from typing import Any, BinaryIO, cast

from upath import UPath

from ealign_plugin.data.readers.json_files import (
    MAX_BYTES,
    article_of,
    hash_of,
    identifier,
    one_line,
    parse,
    split_files,
    split_in_name,
    split_of,
)
from ealign_plugin.data.readers.source import BadRecord, ReadSample, Skipped, Source, get, read_or_skip
from ealign_plugin.errors import UserError
from ealign_plugin.news import NewsSample

FIELDS = frozenset(
    {"id", "image", "caption", "article", "headline", "split", "image_position", "article_id", "entities"}
)
"""What becomes part of the sample; every other field is kept in ``extra``."""


def read(source: Source) -> Iterator[ReadSample | Skipped]:
    """Samples of a JSON Lines file, or of a folder with ``train.jsonl``, ``val.jsonl`` and ``test.jsonl``.

    A line that is no JSON, or no UTF-8, is skipped; an empty line is nothing.

    Raises:
        UserError: a file is missing, its gzip is broken, or a line is longer than `MAX_BYTES`.
    """
    for path, span in split_files(source, (".jsonl", ".jsonl.gz")):
        split = split_in_name(path)
        for number, line in _lines(source, path, span):
            where = f"line {number}"
            try:
                record = _record(line)
                key = identifier(record, "id")
            except BadRecord as error:
                yield Skipped(f"{path.name}, {where}", error.cause, f"{where}: {error.detail}")
            else:
                yield read_or_skip(key, partial(_found, source, split, key, record))


def _lines(source: Source, path: UPath, span: tuple[float, float]) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of each line that is not empty."""
    with source.open(path, span=span) as raw:
        # The counting file has no buffer: its own readline would fetch byte by byte.
        buffered = cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, raw), 1 << 18))
        file = cast(BinaryIO, gzip.GzipFile(fileobj=buffered)) if path.name.endswith(".gz") else buffered
        number = 0
        try:
            while line := file.readline(MAX_BYTES + 1):
                number += 1
                if len(line) > MAX_BYTES:
                    raise UserError(
                        f"{path}: line {number} is longer than {MAX_BYTES >> 20} MiB; this is no JSON Lines"
                    )
                if line := line.removeprefix(codecs.BOM_UTF8 if number == 1 else b"").strip():
                    yield number, line
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise UserError(
                f"{path}: its gzip breaks off or is damaged after line {number} ({error}); get it again"
            ) from None


def _record(line: bytes) -> Any:
    try:
        line.decode()
    except UnicodeDecodeError as error:
        raise BadRecord("text is not UTF-8", f"byte {error.start:,}") from None
    try:
        return parse(line)
    except BadRecord as error:
        raise BadRecord("line is no JSON", error.detail) from None


def _found(source: Source, split: str | None, key: str, record: Any) -> ReadSample:
    given = article_of(record, "article")
    article = tuple(filter(None, given))
    position = get(record, "image_position", int, default=None)
    if position is not None:
        if not 0 <= position <= len(given):
            raise BadRecord("image_position outside the article", f"{position} of {len(given)} paragraphs")
        position = len(tuple(filter(None, given[:position])))  # empty paragraphs are left out
    article_id = identifier(record, "article_id", default=hash_of(article))
    extra = {name: value for name, value in record.items() if name not in FIELDS}
    if record.get("entities") is not None:
        extra["source_entities"] = record["entities"]
    recorded = record.get("split")
    sample = NewsSample(
        key=key,
        split=split_of(source, split if recorded is None else recorded, article_id),
        caption=get(record, "caption", str).strip(),
        paragraphs=article,
        headline=one_line(get(record, "headline", str, default="")),
        article_id=article_id,
        image_position=position,
        source="jsonl",
        extra=extra,
    )
    return ReadSample(sample, source.image(get(record, "image", str), "."))
