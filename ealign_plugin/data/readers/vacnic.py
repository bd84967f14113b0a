"""VACNIC's JSON of GoodNews or NYTimes800k (repository tingyu215/VACNIC).

``train.json`` (or ``train_dict_….json``, as its scripts name it), the same for val and test::

    {image_id: {"caption": text, "names": [text], "org_norp": […], "gpe_loc": […], "names_art": […], …}}

with ``articles_full/<image_id>.txt`` (GoodNews) or ``articles_seg/<image_id>.txt`` (NYTimes800k: title, first
paragraph, then what stands around the photo, up to 510 tokens) and ``images_processed/<image_id>.jpg``.

Nothing here tells which photos share an article, so `article_id` is a hash of the article's text, and the
photos come in the file's order. Photos of one NYTimes800k article have texts of their own, so they count as
articles of their own. Each text file is read for its photo.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from upath import UPath

from ealign_plugin.data.readers.json_files import (
    entries,
    first_folder,
    folder_of,
    hash_of,
    read_text,
    split_files,
    split_in_name,
    split_of,
)
from ealign_plugin.data.readers.source import (
    ReadSample,
    Skipped,
    Source,
    get,
    inside,
    paragraphs,
    read_or_skip,
)
from ealign_plugin.errors import UserError
from ealign_plugin.news import NewsSample

ARTICLES = ("articles_full", "articles_seg", "articles")


ENTITIES = tuple(
    f"{kind}{place}"
    for place in ("", "_cap", "_art")
    for kind in ("name", "names", "org_norp", "gpe_loc", "org_norp_gpe_loc", "ner")
) + ("named_entites", "named_entities")
"""Names of VACNIC's entity lists over its versions (src/data/), one of them misspelt there."""


def read(source: Source) -> Iterator[ReadSample | Skipped]:
    """Samples of a folder with a JSON file for each split, or of one such file.

    Raises:
        UserError: a JSON file is missing or broken, or there is no folder of articles beside it.
    """
    files = split_files(source, (".json",))
    articles = first_folder(source, *ARTICLES)
    if articles is None:
        raise UserError(
            f"{folder_of(source)}: no folder {' or '.join(ARTICLES)} in it; VACNIC's JSON needs its articles"
        )
    texts = folder_of(source) / articles
    for path, span in files:
        split = split_in_name(path)
        for key, record in entries(source, path, "object", span=span):
            yield read_or_skip(key, partial(_found, source, texts, split, key, record))


def _found(source: Source, texts: UPath, split: str | None, key: str, record: Any) -> ReadSample:
    caption = get(record, "caption", str).strip()
    article = paragraphs(read_text(texts / inside(f"{key}.txt")))
    article_id = hash_of(article)
    entities = {name: record[name] for name in ENTITIES if record.get(name) is not None}
    sample = NewsSample(
        key=key,
        split=split_of(source, split, article_id),
        caption=caption,
        paragraphs=article,
        article_id=article_id,
        source="vacnic",
        extra={"source_entities": entities} if entities else {},
    )
    return ReadSample(sample, source.image(f"{key}.jpg", "images_processed"))
