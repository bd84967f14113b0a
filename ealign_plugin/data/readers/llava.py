"""News captioning as LLaVA's conversations, as MERGE is trained (repository youxiaoxing/MERGE).

``{"train": [record], "val": [record], "test": [record]}``, or a list of records, where a record is::

    {"id": "4fd2_0", "image": "4fd2_0.jpg",
     "conversations": [{"from": "human", "value": instruction + article}, {"from": "gpt", "value": caption}]}

The caption is the first ``gpt`` value. The article is the record's ``article`` or ``context`` where it has
one, else the first ``human`` value without ``<image>``, as it stands: an instruction around the article
stays in (MERGE's begins with a line "Please generate …", and holds a summary, not the article). Whoever
knows a file's instruction should strip it and give the article in a field of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from ealign_plugin.data.readers.json_files import (
    article_of,
    entries,
    first_folder,
    hash_of,
    identifier,
    one_line,
    split_files,
    split_in_name,
    split_of,
)
from ealign_plugin.data.readers.source import (
    BadRecord,
    ReadSample,
    Skipped,
    Source,
    get,
    paragraphs,
    read_or_skip,
)
from ealign_plugin.news import NewsSample

FIELDS = frozenset({"id", "image", "conversations", "article", "context", "headline", "article_id"})
"""What becomes part of the sample; every other field is kept in ``extra``."""


def read(source: Source) -> Iterator[ReadSample | Skipped]:
    """Samples of a JSON file, or of a folder with ``train.json``, ``val.json`` and ``test.json``.

    Photos lie in ``images`` below the file's folder, or where it has none, in that folder. The split is
    what the list stands under, else what the file's name begins with.

    Raises:
        UserError: a file is missing or broken.
    """
    images = first_folder(source, "images") or "."
    for path, span in split_files(source, (".json",)):
        file_split = split_in_name(path)
        for position, (name, record) in enumerate(entries(source, path, "lists", span=span)):
            try:
                key = identifier(record, "id")
            except BadRecord as error:
                yield Skipped(f"{path.name}, record {position + 1}", error.cause, error.detail)
            else:
                named = name or file_split
                yield read_or_skip(key, partial(_found, source, images, named, key, record))


def _found(source: Source, images: str, split: str | None, key: str, record: Any) -> ReadSample:
    article = tuple(filter(None, _article(record)))
    article_id = identifier(record, "article_id", default=hash_of(article))
    sample = NewsSample(
        key=key,
        split=split_of(source, split, article_id),
        caption=_said(record, "gpt").strip(),
        paragraphs=article,
        headline=one_line(get(record, "headline", str, default="")),
        article_id=article_id,
        source="llava",
        extra={name: value for name, value in record.items() if name not in FIELDS},
    )
    return ReadSample(sample, source.image(get(record, "image", str), images))


def _article(record: Any) -> tuple[str, ...]:
    for name in ("article", "context"):
        if record.get(name) is not None:
            return article_of(record, name)
    return paragraphs(_said(record, "human").replace("<image>", " "))


def _said(record: Any, speaker: str) -> str:
    for turn in get(record, "conversations", list):
        if get(turn, "from", str) == speaker:
            return get(turn, "value", str)
    raise BadRecord("missing turn of the conversation", speaker)
