"""What a reader yields → parts, each of which becomes one shard.

Which samples a shard holds is decided here, from the source alone, before any photo is opened and any text is
annotated. So parts can be worked on by any number of processes on any machines, a part that is done need not
be done again, and the bytes are always the same::

    reader      a1_0 train   a1_1 train   a2_0 val   a3_0 train   a3_1 train   a4_0 test …
    parts       train-000000  a1_0 a1_1 a3_0 a3_1        (samples_per_shard 3: an article stays whole)
                val-000000    a2_0 …
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ealign_plugin.data.readers.source import ReadSample, Skipped
from ealign_plugin.errors import UserError
from ealign_plugin.news import SPLITS

_KEY = re.compile(r"[^./\\\s\x00-\x1f\x7f]+")


@dataclass(frozen=True, slots=True)
class Part:
    """The samples of one shard, not yet annotated.

    Args:
        name: The shard's file name.
        split: Their split.
        items: Samples and photos, those of an article in a row.
    """

    name: str
    split: str
    items: tuple[ReadSample, ...]


def plan(
    items: Iterable[ReadSample | Skipped], *, samples_per_shard: int, max_characters: int = 1_000_000
) -> Iterator[Part | Skipped]:
    """Lay out the shards, lazily; whatever cannot stand in a shard comes out as `Skipped`.

    Args:
        items: What a reader yields.
        samples_per_shard: A shard is closed after so many samples, at the end of an article.
        max_characters: Longest paragraph or caption that the NER model takes.

    Raises:
        UserError: ``samples_per_shard`` is no positive number.
    """
    if samples_per_shard < 1:
        raise UserError(f"--samples-per-shard: at least 1 was expected, found {samples_per_shard}")
    waiting: dict[str, list[ReadSample]] = {split: [] for split in SPLITS}
    numbers = dict.fromkeys(SPLITS, 0)
    seen: set[int] = set()

    def close(split: str) -> Part:
        part = Part(f"{split}-{numbers[split]:06d}.tar", split, tuple(waiting[split]))
        numbers[split] += 1
        waiting[split] = []
        return part

    for item in items:
        if isinstance(item, Skipped):
            yield item
            continue
        if cause := _unusable(item, max_characters):
            yield Skipped(item.sample.key, *cause)
            continue
        mark = hash(item.sample.key)  # 8 bytes a key: the keys of a million photos stay small
        if mark in seen:
            yield Skipped(item.sample.key, "key occurs twice", str(item.image))
            continue
        seen.add(mark)
        split, held = item.sample.split, waiting[item.sample.split]
        if len(held) >= samples_per_shard and not _same_article(held[-1], item):
            yield close(split)
        waiting[split].append(item)
    for split in SPLITS:
        if waiting[split]:
            yield close(split)


def _same_article(one: ReadSample, other: ReadSample) -> bool:
    return (one.sample.article_id, one.sample.paragraphs) == (
        other.sample.article_id,
        other.sample.paragraphs,
    )


def _unusable(item: ReadSample, max_characters: int) -> tuple[str, str] | None:
    """Cause and detail, where the sample's text cannot stand in a shard."""
    sample = item.sample
    if not _KEY.fullmatch(sample.key):
        return "key with a dot, a slash or a space", repr(sample.key)
    if sample.split not in SPLITS:
        return "unknown split", repr(sample.split)
    if not sample.caption.strip():
        return "empty caption", ""
    if not any(paragraph.strip() for paragraph in sample.paragraphs):
        return "empty article", ""
    longest = max(map(len, (sample.caption, sample.headline, *sample.paragraphs)))
    if longest > max_characters:
        return "text too long", f"{longest:,} characters, at most {max_characters:,} are annotated"
    try:
        json.dumps(sample.to_json(), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return "text is not Unicode", "a lone surrogate"
    except (TypeError, ValueError) as error:
        return "record is no JSON", str(error)
    return None
