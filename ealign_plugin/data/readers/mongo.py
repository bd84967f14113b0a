"""Documents of a MongoDB database: from a dump, read as a stream without a server, or from a live server.

Three things hold a dump. ``mongodump --archive``, with ``--gzip`` or without, writes one file::

    6d e2 99 81                                    magic number
    {concurrent_collections, version, …}           header, a BSON document
    {db, collection, metadata, size, type} …       one for each collection
    ff ff ff ff                                    terminator
    {db, collection, EOF: false, CRC}              a block: its header,
        document … ff ff ff ff                     documents of that collection, terminator
    {db, collection, EOF: true, CRC} ff ff ff ff   the collection is complete

Blocks of several collections interleave (mongo-tools, ``common/archive/spec.md``). ``mongodump --out`` writes
a folder with a plain ``db/collection.bson`` for each collection: documents and nothing else; each such file
can be given by itself.

Reading ends as soon as the collections asked for are complete: what stands behind them, in the public dumps
the features of detectors, may be larger than everything else. A file that is cut off before is an error; a
plain ``.bson`` file without gzip that ends between two documents looks complete.
"""

from __future__ import annotations

import gzip
import io
import math
import re
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from upath import UPath

from ealign_plugin.data.readers.source import BadRecord, Skipped, Source, get
from ealign_plugin.errors import UserError

Document = dict[str, Any]


MAX_DOCUMENT = (16 << 20) + (16 << 10)
"""Bytes of the largest document: MongoDB's limit, and what it allows itself above that."""


_MAGIC = b"\x6d\xe2\x99\x81"


_GZIP = b"\x1f\x8b"


_TERMINATOR = 0xFFFFFFFF


_BUFFER = 1 << 18


_MAX_DEPTH = 32


def documents(
    source: Source, collections: Collection[str], *, database: str, count: bool = True
) -> Iterator[tuple[str, Document] | Skipped]:
    """Documents of some collections, each with its collection's name, in the order of the dump.

    Args:
        source: An archive, a folder that mongodump wrote or a ``.bson`` file in it, each with gzip or
            without, or a ``mongodb://`` URL that names the database; its documents come sorted by ``_id``.
        collections: Names of the collections.
        database: Where a dump holds several databases with these collections, the one to read.
        count: Whether ``source.share`` follows.

    Yields:
        Name and document: plain dicts and lists, times with a time zone. A document that cannot be decoded
        is a `Skipped`.

    Raises:
        UserError: a file that is cut off, damaged or no dump; a collection that is missing; a server that
            cannot be reached.
    """
    if source.location.startswith(("mongodb://", "mongodb+srv://")):
        return _live(source, collections, count)
    path = source.path
    if path.is_dir():
        return _folder(source, path, collections, database, count)
    with _unpacked(source, path, count=False) as stream:
        start = stream.peek(len(_MAGIC))
    if start == _MAGIC:
        return _archive(source, path, collections, database, count)
    if path.name.endswith((".bson", ".bson.gz")):
        return _folder(source, path.parent, collections, database, count)
    raise UserError(
        f"{path}: no dump of MongoDB (an archive begins with {_MAGIC.hex(' ')}, found "
        f"{start.hex(' ') or 'an empty file'}); give what mongodump wrote: archive, folder or .bson file"
    )


def identifier(record: Document, name: str = "_id") -> str:
    """A field that names something: text, a number or an ObjectId, as text.

    Raises:
        BadRecord: it is missing or something else.
    """
    from bson import ObjectId

    return str(get(record, name, str, int, ObjectId))


def text_at(record: Any, *names: str) -> str:
    """The text in a field of a field …, its lines joined; empty where there is none."""
    for name in names:
        record = record.get(name) if isinstance(record, Mapping) else None
    return " ".join(record.split()) if isinstance(record, str) else ""


def json_value(value: Any, depth: int = 0) -> Any:
    """The value in JSON's types: times in ISO 8601, ObjectIds as text, numbers that are not finite as null.

    Raises:
        BadRecord: a value of another type, or nested more than 32 deep.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)  # Int64 is a class of its own
    if isinstance(value, dict) and depth < _MAX_DEPTH:
        return {str(name): json_value(item, depth + 1) for name, item in value.items()}
    if isinstance(value, list) and depth < _MAX_DEPTH:
        return [json_value(item, depth + 1) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime):
        return value.isoformat()

    from bson import ObjectId

    if isinstance(value, ObjectId):
        return str(value)
    raise BadRecord("value that JSON cannot hold", type(value).__name__)


def _archive(
    source: Source, path: UPath, collections: Collection[str], database: str, count: bool
) -> Iterator[tuple[str, Document] | Skipped]:
    with _unpacked(source, path, count) as stream:
        stream.read(len(_MAGIC))
        if stream.document() is None:
            raise stream.damaged("a terminator instead of the archive's header")
        held: dict[str, set[str]] = {}
        while raw := stream.document():
            name, collection, _ = _namespace(stream, raw)
            held.setdefault(name, set()).add(collection)
        chosen = _choose(held, collections, database, str(path))
        unfinished = set(collections)
        while unfinished:
            if not (raw := stream.document()):
                raise stream.damaged("a terminator instead of a block's header")
            name, collection, complete = _namespace(stream, raw)
            wanted = name == chosen and collection in collections
            if wanted and complete:
                unfinished.discard(collection)
            while raw := stream.document(keep=wanted):
                if wanted:
                    yield _decoded(collection, raw, stream)


def _folder(
    source: Source, folder: UPath, collections: Collection[str], database: str, count: bool
) -> Iterator[tuple[str, Document] | Skipped]:
    files = {folder.name: _files(folder, collections)}
    if not files[folder.name]:
        files = {home.name: _files(home, collections) for home in sorted(folder.iterdir(), key=str)}
    held = {name: set(paths) for name, paths in files.items()}
    chosen = _choose(held, collections, database, str(folder), suffix=".bson")
    for collection in collections:
        with _unpacked(source, files[chosen][collection], count) as stream:
            while stream.peek(1):
                if not (raw := stream.document()):
                    raise stream.damaged("an archive's terminator in a plain .bson file")
                yield _decoded(collection, raw, stream)


def _files(folder: UPath, collections: Collection[str]) -> dict[str, UPath]:
    """The files of the collections, asked for by name: the folder may hold a million photos."""
    return {
        collection: path
        for collection in collections
        for path in (folder / f"{collection}.bson.gz", folder / f"{collection}.bson")
        if path.is_file()
    }


def _live(
    source: Source, collections: Collection[str], count: bool
) -> Iterator[tuple[str, Document] | Skipped]:
    import pymongo
    from bson.errors import InvalidBSON
    from pymongo.errors import PyMongoError

    where = re.sub("//.*@", "//", source.location)  # without the password
    if source.images is None:
        raise UserError(f"{where}: the database holds no photos; name their folder with --images")
    try:
        if not urlsplit(source.location).path.strip("/"):
            raise UserError(f"{where}: the URL names no database; write mongodb://HOST/DATABASE")
        client: pymongo.MongoClient[Document] = pymongo.MongoClient(
            source.location,
            serverSelectionTimeoutMS=5000,
            tz_aware=True,
            datetime_conversion="DATETIME_AUTO",
        )
        with client:
            database = client.get_default_database()
            _choose({database.name: set(database.list_collection_names())}, collections, database.name, where)
            for collection in collections:
                total = max(1, database[collection].estimated_document_count())
                for number, document in enumerate(database[collection].find().sort("_id", 1), start=1):
                    if count:
                        source.share = min(1.0, number / total)
                    yield collection, document
    except (PyMongoError, InvalidBSON, ValueError) as error:  # ValueError: the URL is malformed
        # Behind the timeout pymongo describes the whole topology.
        cause = str(error).partition(", Timeout:")[0]
        raise UserError(
            f"{where}: the database cannot be read ({cause}); see that the server runs and the URL is right, "
            "or give the dump itself"
        ) from None


class _Stream:
    """BSON documents one after the other; ``offset`` counts the unpacked bytes read so far."""

    def __init__(self, file: io.BufferedReader, path: UPath) -> None:
        self._file, self._path, self.offset = file, path, 0

    def peek(self, size: int) -> bytes:
        return self._file.peek(size)[:size]

    def read(self, size: int) -> bytes:
        """Exactly so many bytes.

        Raises:
            EOFError: there are fewer.
        """
        content = self._file.read(size)
        if len(content) < size:
            raise EOFError
        self.offset += size
        return content

    def document(self, keep: bool = True) -> bytes | None:
        """The next document's bytes, or None where a terminator stands; only four of them unless ``keep``."""
        start = self.read(4)
        size = int.from_bytes(start, "little")
        if size == _TERMINATOR:
            return None
        if not 5 <= size <= MAX_DOCUMENT:
            raise self.damaged(f"a document of {size:,} bytes, 5 to {MAX_DOCUMENT:,} were expected")
        rest = self.read(size - 4)
        return start + rest if keep else start

    def damaged(self, found: str) -> UserError:
        return UserError(
            f"{self._path}: the dump is damaged at byte {self.offset:,} of its unpacked content ({found}); "
            "fetch the file again"
        )


@contextmanager
def _unpacked(source: Source, path: UPath, count: bool) -> Iterator[_Stream]:
    with source.open(path, count=count) as file:
        try:
            buffered: Any = io.BufferedReader(file, _BUFFER)
            if buffered.peek(2)[:2] == _GZIP:
                # The second buffer spares a call of Python for each of the small reads.
                buffered = io.BufferedReader(gzip.GzipFile(fileobj=buffered), _BUFFER)
            yield _Stream(buffered, path)
        except EOFError:
            raise UserError(
                f"{path}: the file is cut off at byte {path.stat().st_size:,}, in the middle of the dump; "
                "fetch it again"
            ) from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise UserError(f"{path}: its gzip is damaged ({error}); fetch the file again") from None


def _decode(raw: bytes) -> Document:
    from bson import decode
    from bson.codec_options import CodecOptions, DatetimeConversion

    # AUTO: a date beyond Python's years must not cost the whole document.
    return decode(raw, CodecOptions(tz_aware=True, datetime_conversion=DatetimeConversion.DATETIME_AUTO))


def _decoded(collection: str, raw: bytes, stream: _Stream) -> tuple[str, Document] | Skipped:
    from bson.errors import InvalidBSON

    try:
        return collection, _decode(raw)
    except InvalidBSON as error:
        name = f"{collection}, byte {stream.offset - len(raw)}"
        return Skipped(name, "document is no valid BSON", str(error))


def _namespace(stream: _Stream, raw: bytes) -> tuple[str, str, bool]:
    """Database, collection, and whether the collection is complete: from a metadata document or a header."""
    from bson.errors import InvalidBSON

    try:
        header = _decode(raw)
        return get(header, "db", str), get(header, "collection", str), get(header, "EOF", bool, default=False)
    except (InvalidBSON, BadRecord) as error:
        cause = ": ".join(map(str, error.args))
        raise stream.damaged(f"a header without the name of a collection: {cause}") from None


def _choose(
    held: Mapping[str, set[str]], collections: Collection[str], database: str, where: str, suffix: str = ""
) -> str:
    """The database that holds all these collections."""
    having = [name for name in held if held[name].issuperset(collections)]
    if len(having) == 1 or database in having:
        return database if database in having else having[0]
    expected = " and ".join(f"{collection}{suffix}" for collection in collections)
    if having:
        raise UserError(
            f"{where}: {expected} found in several databases ({', '.join(sorted(having))}); "
            f"dump one of them (mongodump --db), or name it {database}"
        )
    found = (
        ", ".join(sorted(f"{name}.{item}{suffix}" for name in held for item in held[name])) or "none of it"
    )
    raise UserError(f"{where}: {expected} expected, found {found}; give the data set's own dump")
