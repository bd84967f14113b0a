"""Dumps as mongodump writes them, byte by byte, from documents in memory."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import bson

MAGIC = bytes.fromhex("6de29981")
TERMINATOR = b"\xff\xff\xff\xff"

Databases = Mapping[str, Mapping[str, Sequence[Any]]]
"""Database -> collection -> documents; one given as bytes is written as it is."""


def archive(databases: Databases, *, per_block: int = 1) -> bytes:
    """What ``mongodump --archive`` writes: blocks of so many documents, the collections taking turns."""
    namespaces = {(db, name): docs for db, held in databases.items() for name, docs in held.items()}
    content = [MAGIC, bson.encode({"concurrent_collections": 4, "version": "0.1", "tool_version": "100.9"})]
    for db, name in namespaces:
        metadata = {"db": db, "collection": name, "metadata": '{"indexes":[]}', "size": 1}
        content.append(bson.encode({**metadata, "type": "collection"}))
    content.append(TERMINATOR)
    turns = [
        [block(db, name, docs[first : first + per_block]) for first in range(0, len(docs), per_block)]
        + [block(db, name, [], complete=True)]
        for (db, name), docs in namespaces.items()
    ]
    content += [one for turn in zip_longest(*turns, fillvalue=b"") for one in turn]
    return b"".join(content)


def block(db: str, collection: str, documents: Sequence[Any], *, complete: bool = False) -> bytes:
    """A namespace header, documents of that collection, the terminator."""
    header = {"db": db, "collection": collection, "EOF": complete, "CRC": bson.Int64(0)}
    return b"".join([bson.encode(header), *map(encoded, documents), TERMINATOR])


def encoded(document: Any) -> bytes:
    return document if isinstance(document, bytes) else bson.encode(document)


def write_archive(path: Path, databases: Databases, *, zipped: bool = False, per_block: int = 1) -> Path:
    """Write ``mongodump --archive=PATH``, with ``--gzip`` where ``zipped``."""
    content = archive(databases, per_block=per_block)
    path.write_bytes(gzip.compress(content, mtime=0) if zipped else content)
    return path


def write_folder(folder: Path, databases: Databases, *, zipped: bool = False) -> Path:
    """Write ``mongodump --out FOLDER``: a folder for each database, two files for each collection."""
    for db, held in databases.items():
        (folder / db).mkdir(parents=True)
        for name, documents in held.items():
            for end, content in ((".bson", b"".join(map(encoded, documents))), (".metadata.json", b"{}")):
                path = folder / db / f"{name}{end}{'.gz' if zipped else ''}"
                path.write_bytes(gzip.compress(content, mtime=0) if zipped else content)
    return folder
