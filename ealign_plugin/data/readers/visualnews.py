"""VisualNews (repository FuxiaoLiu/VisualNews-Repository): ``origin/data.json`` and the files that it names.

``[{"id": 1, "caption", "topic", "source": "bbc", "image_path": "./bbc/images/0376/501.jpg",
"article_path": "./bbc/articles/39136.txt"}, …]``: a million photos, those of one article scattered over
the file. The data set has no splits; ours go by `split_by_hash` of the article's path.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

from ealign_plugin.data.readers.json_files import entries, folder_of, identifier, read_text, split_of
from ealign_plugin.data.readers.source import (
    BadRecord,
    ReadSample,
    Skipped,
    Source,
    get,
    inside,
    paragraphs,
    read_or_skip,
)
from ealign_plugin.news import NewsSample


class _Row(NamedTuple):
    """What is kept of a photo until its article's turn."""

    id: str
    caption: str
    topic: str
    publisher: str
    image: str

    @property
    def key(self) -> str:
        return re.sub(r"[^A-Za-z0-9_-]+", "_", f"{self.publisher}_{self.id}")


def read(source: Source) -> Iterator[ReadSample | Skipped]:
    """Samples of the folder with ``data.json``, or of that file.

    The whole of ``data.json`` is held in memory (about 0.5 GB), to bring each article's photos together;
    articles come in the order in which it first names them, and each article's file is read once.

    Raises:
        UserError: ``data.json`` is missing or broken.
    """
    folder = folder_of(source)
    path = source.path / "data.json" if source.path.is_dir() else source.path
    articles: dict[str, list[_Row]] = {}
    for position, (_, record) in enumerate(entries(source, path, "list", count=False)):
        try:
            articles.setdefault(_inside(record, "article_path"), []).append(_row(record))
        except BadRecord as error:
            yield Skipped(f"{path.name}[{position}]", error.cause, error.detail)
    for done, (article_path, rows) in enumerate(articles.items(), 1):
        try:
            article = paragraphs(read_text(folder / article_path))
        except BadRecord as error:
            yield from (Skipped(row.key, error.cause, error.detail) for row in rows)
        else:
            for row in rows:
                yield read_or_skip(row.key, partial(_found, source, article_path, article, row))
        source.share = done / len(articles)


def _row(record: Any) -> _Row:
    return _Row(
        identifier(record, "id"),
        get(record, "caption", str).strip(),
        sys.intern(get(record, "topic", str, default="")),
        sys.intern(get(record, "source", str)),
        _inside(record, "image_path"),
    )


def _inside(record: Any, name: str) -> str:
    return inside(get(record, name, str))


def _found(source: Source, article_path: str, article: tuple[str, ...], row: _Row) -> ReadSample:
    sample = NewsSample(
        key=row.key,
        split=split_of(source, None, article_path),
        caption=row.caption,
        paragraphs=article,
        article_id=article_path,
        source="visualnews",
        extra={"topic": row.topic, "publisher": row.publisher},
    )
    return ReadSample(sample, source.image(row.image, "."))
