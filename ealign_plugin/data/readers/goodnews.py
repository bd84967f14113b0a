"""GoodNews: the authors' JSON (repository furkanbiten/GoodNews), or the MongoDB dump of Transform and Tell.

``captioning_dataset.json``, in some copies ``article_caption.json``::

    {article_id: {"images": {"0": caption, "2": caption}, "article": text, "headline": {"main": text}, …}}

Splits stand in ``img_splits.json`` (``{"<article_id>_<idx>": split}``) or in ``news_dataset.json``
(``[{filename, split, …}]``); photos are ``<article_id>_<idx>.jpg`` in ``images``, ``resized`` or
``images_processed``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from functools import cache, partial
from typing import Any

from upath import UPath

from ealign_plugin.data.readers.goodnews_mongo import read as read_mongo
from ealign_plugin.data.readers.json_files import entries, existing, first_folder, one_line, split_of, stem
from ealign_plugin.data.readers.source import (
    BadRecord,
    ReadSample,
    Skipped,
    Source,
    get,
    paragraphs,
    read_or_skip,
)
from ealign_plugin.errors import UserError
from ealign_plugin.news import NewsSample

ARTICLES = ("captioning_dataset.json", "article_caption.json")


SPLIT_FILES = ("img_splits.json", "news_dataset.json")


def read(source: Source) -> Iterator[ReadSample | Skipped]:
    """Samples of a folder with the JSON files, of its ``captioning_dataset.json``, or of the MongoDB dump.

    A folder with both is read as JSON.

    Raises:
        UserError: a file is missing or broken; for the dump see `read`.
    """
    path = _articles_file(source)
    if path is None:
        yield from read_mongo(source)
        return
    splits = {} if source.split else _splits(source, path.parent)
    images = first_folder(source, "images", "resized", "images_processed") or "images"
    for article_id, record in entries(source, path, "object"):
        yield from _photos(source, splits, images, article_id, record)


def _articles_file(source: Source) -> UPath | None:
    """The JSON file of the articles; None where the source is MongoDB's."""
    if source.location.startswith(("mongodb://", "mongodb+srv://")):
        return None
    path = source.path
    if path.name.lower().endswith(".json"):
        return existing(path)
    if not path.is_dir():
        return None
    for name in ARTICLES:
        if (path / name).is_file():
            return path / name
    homes = [path, *(child for child in path.iterdir() if child.is_dir())]
    if any((home / name).is_file() for home in homes for name in ("articles.bson", "articles.bson.gz")):
        return None
    raise UserError(
        f"{path}: neither {' nor '.join(ARTICLES)} in it, and no dump with articles.bson; "
        "give the folder with GoodNews' files, or the dump's file"
    )


def _splits(source: Source, folder: UPath) -> dict[str, Any]:
    """What the source says of each photo, by ``<article_id>_<idx>``: 462,000 names, held in memory."""
    if (path := folder / SPLIT_FILES[0]).is_file():
        return {
            key: sys.intern(split) if isinstance(split, str) else split
            for key, split in entries(source, path, "object", count=False)
        }
    if (path := folder / SPLIT_FILES[1]).is_file():
        # A row without a photo's name names no photo here; that photo is then skipped for want of a split.
        return {
            stem(row["filename"]): row.get("split")
            for _, row in entries(source, path, "list", count=False)
            if isinstance(row, dict) and isinstance(row.get("filename"), str)
        }
    raise UserError(
        f"{folder}: neither {' nor '.join(SPLIT_FILES)} in it, which tell GoodNews' official splits; "
        "get one of them, or give all photos one split with --split"
    )


def _photos(
    source: Source, splits: Mapping[str, Any], images: str, article_id: str, record: Any
) -> Iterator[ReadSample | Skipped]:
    try:
        captions = get(record, "images", dict)
    except BadRecord as error:
        yield Skipped(article_id, error.cause, error.detail)
        return

    @cache
    def article() -> tuple[str, ...]:
        return paragraphs(get(record, "article", str))

    def found(idx: str) -> ReadSample:
        key = f"{article_id}_{idx}"
        url = get(record, "article_url", str, default="")
        if not source.split and splits.get(key) is None:
            raise BadRecord("no split in the source")
        sample = NewsSample(
            key=key,
            split=split_of(source, splits.get(key), article_id),
            caption=get(captions, idx, str).strip(),
            paragraphs=article(),
            headline=_headline(record),
            article_id=article_id,
            source="goodnews",
            extra={"url": url} if url else {},
        )
        return ReadSample(sample, source.image(f"{key}.jpg", images))

    for idx in captions:
        yield read_or_skip(f"{article_id}_{idx}", partial(found, idx))


def _headline(record: Mapping[str, Any]) -> str:
    """The headline: ``{"headline": {"main": text}}`` or ``{"headline.main": text}``, where there is one."""
    headline = get(record, "headline", dict, str, default={})
    if isinstance(headline, dict):
        headline = get(headline, "main", str, default="") or get(record, "headline.main", str, default="")
    return one_line(headline)
