"""GoodNews as Transform and Tell ships it: the MongoDB dump ``goodnews-2020-04-21.gz``, or the live database.

``splits`` holds ``article_id, image_index, split``; ``articles`` holds ``_id, images {index: caption},
article, context, web_url, caption_ner {index: entities}, context_ner``, where ``context`` is title, blank
line, article. Photos are ``<article_id>_<index>.jpg`` in ``images_processed``, where that repository's code
looks for them (tell/data/dataset_readers/goodnews_face_ner_matched.py).

The two collections interleave in the dump, so it is read twice: for the splits, then for the articles.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from ealign_plugin.data.readers.mongo import Document, documents, identifier, json_value, text_at
from ealign_plugin.data.readers.source import (
    BadRecord,
    ReadSample,
    Skipped,
    Source,
    get,
    paragraphs,
    read_or_skip,
)
from ealign_plugin.news import SPLITS, NewsSample

IMAGES = "images_processed"
"""Folder of the photos beside the dump, where the user names none."""


def read(source: Source) -> Iterator[ReadSample | Skipped]:
    """Samples of a dump (archive, folder or ``.bson`` file) or of a ``mongodb://`` URL.

    Raises:
        UserError: see `ealign_plugin.data.readers.mongo.documents`.
    """
    splits: dict[str, str] = {}  # "<article_id>_<index>" -> split
    if source.split is None:
        for item in documents(source, ["splits"], database="goodnews", count=False):
            if isinstance(item, Skipped):
                yield item
                continue
            try:
                key = f"{identifier(item[1], 'article_id')}_{identifier(item[1], 'image_index')}"
                splits[key] = sys.intern(get(item[1], "split", str))
            except BadRecord as error:
                yield Skipped(f"splits, {item[1].get('_id')}", error.cause, error.detail)
    for item in documents(source, ["articles"], database="goodnews"):
        if isinstance(item, Skipped):
            yield item
        else:
            yield from _photos(source, splits, item[1])


def _photos(source: Source, splits: Mapping[str, str], record: Document) -> Iterator[ReadSample | Skipped]:
    try:
        article_id = identifier(record)
        images = get(record, "images", dict)
        headline, text = _headline_and_text(record)
    except BadRecord as error:
        yield Skipped(str(record.get("_id")), error.cause, error.detail)
        return
    article = paragraphs(text)
    url = text_at(record, "web_url") or text_at(record, "article_url")

    def found(index: str) -> ReadSample:
        key = f"{article_id}_{index}"
        sample = NewsSample(
            key=key,
            split=source.split or _split(splits, key),
            caption=get(images, index, str).strip(),
            paragraphs=article,
            headline=headline,
            article_id=article_id,
            source="goodnews",
            extra=_extra(record, index, url),
        )
        return ReadSample(sample, source.image(f"{key}.jpg", IMAGES))

    for index in images:
        yield read_or_skip(f"{article_id}_{index}", partial(found, index))


def _headline_and_text(record: Document) -> tuple[str, str]:
    """The title out of ``context``, or else ``headline.main``; and the article."""
    text, context = get(record, "article", str).strip(), get(record, "context", str, default="").strip()
    title = context.removesuffix(text) if context.endswith(text) else ""
    return " ".join(title.split()) or text_at(record, "headline", "main"), text


def _split(splits: Mapping[str, str], key: str) -> str:
    split = splits.get(key)
    if split is None:
        raise BadRecord("no split in the source")
    if split not in SPLITS:
        raise BadRecord("unknown split", split)
    return split


def _extra(record: Document, index: str, url: str) -> dict[str, Any]:
    """The address and the source's own entities, offsets as they stand there, where it has them."""
    in_caption = get(record, "caption_ner", dict, default={}).get(index)
    in_context = get(record, "context_ner", list, default=None)
    entities = {
        where: json_value(found)
        for where, found in (("caption", in_caption), ("context", in_context))
        if found is not None
    }
    return {**({"url": url} if url else {}), **({"source_entities": entities} if entities else {})}
