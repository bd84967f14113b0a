"""NYTimes800k (Transform and Tell): the MongoDB dump ``nytimes-2020-04-21.gz``, or the live database.

``articles``: ``_id, headline.main, parsed_section, split, web_url, pub_date``. ``parsed_section`` is the page
from top to bottom, which tells where each photo stands::

    {type: paragraph, text, named_entities}           paragraph 0
    {type: caption, order, text, url, hash, …}        a photo before paragraph 1
    {type: paragraph, text, named_entities}           paragraph 1

Photos are ``<hash>.jpg``, the sha256 of their URL, in ``images_processed``, where that repository's code
looks for them (tell/data/dataset_readers/nytimes_faces_ner_matched.py). The split ``valid`` is our ``val``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from ealign_plugin.data.readers.mongo import Document, documents, identifier, json_value, text_at
from ealign_plugin.data.readers.source import BadRecord, ReadSample, Skipped, Source, get, read_or_skip
from ealign_plugin.news import NewsSample

IMAGES = "images_processed"
"""Folder of the photos beside the dump, where the user names none."""


SPLIT_NAMES = {"train": "train", "valid": "val", "val": "val", "test": "test"}


def read(source: Source) -> Iterator[ReadSample | Skipped]:
    """Samples of a dump (archive, folder or ``.bson`` file) or of a ``mongodb://`` URL.

    Raises:
        UserError: see `ealign_plugin.data.readers.mongo.documents`.
    """
    for item in documents(source, ["articles"], database="nytimes"):
        if isinstance(item, Skipped):
            yield item
        else:
            yield from _photos(source, item[1])


@dataclass(frozen=True, slots=True)
class _Page:
    """A page's paragraphs, the source's entities in each, and its captions with their positions."""

    paragraphs: tuple[str, ...]
    entities: tuple[Any, ...]
    captions: tuple[tuple[int, Document], ...]


def _photos(source: Source, record: Document) -> Iterator[ReadSample | Skipped]:
    try:
        article_id = identifier(record)
        page = _page(get(record, "parsed_section", list))
        extra = _extra(record)
    except BadRecord as error:
        yield Skipped(str(record.get("_id")), error.cause, error.detail)
        return

    def found(key: str, position: int, item: Document) -> ReadSample:
        sample = NewsSample(
            key=key,
            split=source.split or _split(record),
            caption=get(item, "text", str).strip(),
            paragraphs=page.paragraphs,
            headline=text_at(record, "headline", "main"),
            article_id=article_id,
            image_position=position,
            source="nytimes800k",
            extra={**extra, **_source_entities(page, item)},
        )
        return ReadSample(sample, source.image(f"{_hash(item)}.jpg", IMAGES))

    for index, (position, item) in enumerate(page.captions):
        order = item.get("order")
        key = f"{article_id}_{order if isinstance(order, int) else index}"
        yield read_or_skip(key, partial(found, key, position, item))


def _page(section: Sequence[Any]) -> _Page:
    paragraphs: list[str] = []
    entities: list[Any] = []
    captions: list[tuple[int, Document]] = []
    for item in section:
        kind = get(item, "type", str)
        if kind == "caption":
            captions.append((len(paragraphs), item))
        elif kind == "paragraph" and (text := text_at(item, "text")):
            paragraphs.append(text)
            entities.append(json_value(item.get("named_entities")))
    return _Page(tuple(paragraphs), tuple(entities), tuple(captions))


def _split(record: Document) -> str:
    split = get(record, "split", str, default="")
    if not split:
        raise BadRecord("no split in the source")
    if split not in SPLIT_NAMES:
        raise BadRecord("unknown split", split)
    return SPLIT_NAMES[split]


def _hash(item: Document) -> str:
    if (name := get(item, "hash", str, default="")) and not re.fullmatch(r"\w+", name):
        raise BadRecord("photo's hash is malformed", name)
    return name or hashlib.sha256(get(item, "url", str).encode()).hexdigest()


def _extra(record: Document) -> dict[str, Any]:
    url, published = text_at(record, "web_url"), record.get("pub_date")
    dated = isinstance(published, datetime | str)  # a date beyond Python's years is neither
    return {**({"url": url} if url else {}), **({"published": json_value(published)} if dated else {})}


def _source_entities(page: _Page, item: Document) -> dict[str, Any]:
    """The source's own entities, offsets as they stand there: the caption's, and a list per paragraph."""
    entities: dict[str, Any] = {}
    if item.get("named_entities") is not None:
        entities["caption"] = json_value(item["named_entities"])
    if any(found is not None for found in page.entities):
        entities["paragraphs"] = [found or [] for found in page.entities]
    return {"source_entities": entities} if entities else {}
