"""What the readers of JSON share: a stream of records out of files of any size, texts, splits, names.

JSON is parsed by ijson's events, so that memory holds one record and not the file, and built here: ijson's
own builder keeps the path of every level, which a file of 100,000 brackets turns into gigabytes.
"""

from __future__ import annotations

import codecs
import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any, BinaryIO, Literal

import ijson  # type: ignore[import-untyped]
from upath import UPath

from ealign_plugin.data.readers.source import BadRecord, Source, get, paragraphs, split_by_hash
from ealign_plugin.errors import UserError
from ealign_plugin.news import SPLITS

MAX_BYTES = 64 << 20
"""Bytes of the largest record, line or article; of the largest gap between two records, to be exact."""


MAX_DEPTH = 64
"""Lists and objects inside one another."""


_SPLIT_NAMES = {**{split: split for split in SPLITS}, "valid": "val", "validation": "val", "dev": "val"}


_BROKEN = (ijson.JSONError, ValueError)


def entries(
    source: Source,
    path: UPath,
    shape: Literal["object", "list", "lists"],
    *,
    count: bool = True,
    span: tuple[float, float] = (0.0, 1.0),
) -> Iterator[tuple[str, Any]]:
    """The entries of one large JSON file, one after the other.

    Args:
        source: The file's source.
        path: The file: UTF-8, with a byte order mark or without.
        shape: What it holds: ``object`` ``{name: value}``, ``list`` ``[value]``, or ``lists``, which is
            ``{name: [value]}`` or ``[value]``.
        count: Whether ``source.share`` follows.
        span: See `Source.open`.

    Yields:
        Name (in a list: "") and value. A name that stands twice comes twice.

    Raises:
        UserError: the file is missing, cut off, no JSON, of another shape, holds a number beyond 64 bits,
            or a record is larger than `MAX_BYTES` or deeper than `MAX_DEPTH`.
    """
    with source.open(path, count=count, span=span) as file:
        feed = _Feed(file, path)
        try:
            for entry in _entries(_events(feed), shape):
                yield entry
                feed.last = feed.position
        except _BROKEN as error:
            raise UserError(
                f"{path}: no valid JSON of UTF-8 before byte {feed.position:,} ({_reason(error)}); "
                "if it was cut off while downloading, get it again"
            ) from None


def parse(text: bytes) -> Any:
    """The value of one JSON text, under the same rules as `entries`.

    Raises:
        BadRecord: it is no JSON.
    """
    events = _events(io.BytesIO(text))
    try:
        value = _build(*next(events), events)
        for _ in events:  # reads to the end: text after the value is an error
            pass
        return value
    except _BROKEN as error:
        raise BadRecord("no JSON", _reason(error)) from None


def read_text(path: UPath) -> str:
    """A text file of UTF-8.

    Raises:
        BadRecord: it is missing, cannot be read, is larger than `MAX_BYTES` or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise BadRecord("article file missing", str(path)) from None
    except OSError as error:
        raise BadRecord("article file unreadable", f"{path}: {error.strerror or error}") from None
    if len(content) > MAX_BYTES:
        raise BadRecord("article file too large", f"{path}: more than {MAX_BYTES >> 20} MiB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadRecord("text is not UTF-8", f"{path}: byte {error.start:,}") from None


def identifier(record: Any, name: str, **default: str) -> str:
    """A field that names something: text or a whole number, as text.

    Raises:
        BadRecord: see `ealign_plugin.data.readers.source.get`.
    """
    return str(get(record, name, str, int, **default))


def article_of(record: Any, name: str) -> tuple[str, ...]:
    """The paragraphs in a field that holds a text or a list of paragraphs; an empty paragraph stays empty.

    Raises:
        BadRecord: the field is missing, or holds something else.
    """
    article = get(record, name, str, list)
    if isinstance(article, str):
        return paragraphs(article)
    for index, item in enumerate(article):
        if not isinstance(item, str):
            raise BadRecord("field of a wrong type", f"{name}[{index}]: {type(item).__name__}")
    return tuple(map(one_line, article))


def one_line(text: str) -> str:
    """The text with one space wherever it had space."""
    return " ".join(text.split())


def stem(name: str) -> str:
    """A photo's name without folder and ending."""
    return PurePosixPath(name).stem


def hash_of(article: Sequence[str]) -> str:
    """An article's name where its source gives none: photos with the same text then share the article."""
    return hashlib.sha256("\n".join(article).encode()).hexdigest()[:16]


def split_of(source: Source, name: Any, article_id: str) -> str:
    """The sample's split: the user's, else the one that the source tells, else by the article's name.

    Args:
        source: The source, with the user's ``--split``.
        name: A split's name under any of its usual names, or None.
        article_id: The article's name.

    Raises:
        BadRecord: the source tells something that is no split.
    """
    if source.split:
        return source.split
    if name is None:
        return split_by_hash(article_id)
    if not isinstance(name, str) or name.casefold() not in _SPLIT_NAMES:
        raise BadRecord("unknown split", str(name))
    return _SPLIT_NAMES[name.casefold()]


def split_in_name(path: UPath) -> str | None:
    """The split that a file's name begins with ("train.json", "test_dict_seg.json"), or None."""
    return _SPLIT_NAMES.get(re.split(r"[._-]", path.name.casefold())[0])


def split_files(source: Source, endings: tuple[str, ...]) -> list[tuple[UPath, tuple[float, float]]]:
    """The files of a source that is one file, or a folder with one for each split.

    Args:
        source: The source.
        endings: Endings of the files' names.

    Returns:
        Files in the order train, val, test, each with its part of ``source.share``, by size.

    Raises:
        UserError: no such file or folder, or the folder has no such file, or several for one split.
    """
    if not source.path.is_dir():
        return [(existing(source.path), (0.0, 1.0))]
    found: dict[str, UPath] = {}
    for path in sorted(source.path.iterdir(), key=str):
        split = split_in_name(path) if path.name.endswith(endings) else None
        if split and split in found:
            raise UserError(
                f"{source.path}: {found[split].name} and {path.name} both name the split {split}; "
                "give one of them as the source, with --split"
            )
        if split:
            found[split] = path
    if not found:
        names = ", ".join(f"{split}{endings[0]}" for split in SPLITS)
        raise UserError(f"{source.path}: none of {names} in it; give a folder with them, or one file")
    paths = [found[split] for split in SPLITS if split in found]
    ends = [0.0]
    for path in paths:
        ends.append(ends[-1] + (path.stat().st_size or 0))
    total = ends[-1] or 1.0
    return [(path, (ends[i] / total, ends[i + 1] / total)) for i, path in enumerate(paths)]


def existing(path: UPath) -> UPath:
    """The path, where there is something: what else is missing beside it would be the wrong thing to tell.

    Raises:
        UserError: there is nothing.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file; correct the path")
    return path


def folder_of(source: Source) -> UPath:
    """The source's folder: its location, or where the file lies."""
    return source.path if source.path.is_dir() else source.path.parent


def first_folder(source: Source, *names: str) -> str | None:
    """The first of these folders that the source has."""
    folder = folder_of(source)
    return next((name for name in names if (folder / name).is_dir()), None)


class _Feed:
    """Bytes for the parser, without a byte order mark; ``position`` is how many it got."""

    def __init__(self, file: BinaryIO, path: UPath) -> None:
        self._file, self._path = file, path
        self.position = self.last = 0

    def read(self, size: int) -> bytes:
        if self.position - self.last > MAX_BYTES:
            raise UserError(
                f"{self._path}: a record before byte {self.position:,} is larger than {MAX_BYTES >> 20} MiB; "
                "this is no file of news samples"
            )
        if not size:
            return b""
        content = self._file.read(size)
        if not self.position and content.startswith(codecs.BOM_UTF8):
            content = content.removeprefix(codecs.BOM_UTF8)
            self.position = len(codecs.BOM_UTF8)
        self.position += len(content)
        return content


def _events(file: Any) -> Iterator[tuple[str, Any]]:
    # use_float: its other kind, Decimal and int of any length, crashes the interpreter on a number that it
    # cannot convert (ijson 3.6, 1e99999999999999999999).
    return iter(ijson.basic_parse(file, use_float=True))


def _entries(events: Iterator[tuple[str, Any]], shape: str) -> Iterator[tuple[str, Any]]:
    event, top = next(events)
    if event == "start_array" and shape != "object":
        yield from _items("", events)
    elif event == "start_map" and shape != "list":
        for event, name in events:
            if event == "end_map":
                break
            first, value = next(events)
            if shape == "object":
                yield name, _build(first, value, events)
            elif first == "start_array":
                yield from _items(name, events)
            else:
                raise ValueError(f"a list was expected under {name!r}")
    else:
        expected = {"object": "an object", "list": "a list", "lists": "a list or an object of lists"}[shape]
        raise ValueError(f"{expected} was expected, found {event.removeprefix('start_')} {top or ''}".strip())
    for _ in events:  # reads to the end: text after the value is an error
        pass


def _items(name: str, events: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    for event, value in events:
        if event == "end_array":
            return
        yield name, _build(event, value, events)


def _build(event: str, value: Any, events: Iterator[tuple[str, Any]], depth: int = 1) -> Any:
    """The value that begins with this event."""
    if depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    if event == "start_map":
        fields = {}
        for event, name in events:
            if event == "end_map":
                break
            first, inner = next(events)
            fields[name] = _build(first, inner, events, depth + 1)
        return fields
    if event == "start_array":
        items = []
        for event, inner in events:
            if event == "end_array":
                break
            items.append(_build(event, inner, events, depth + 1))
        return items
    return value


def _reason(error: BaseException) -> str:
    """The first line of the parser's message; that of a byte string comes as its repr."""
    return str(error).removeprefix("b'").replace("\\n", "\n").partition("\n")[0].strip() or "number refused"
