"""What stands in a folder of shards: sizes, entities, how much a copying model could reach, and leaks.

One pass over the shards, in bounded memory: counters, and for each sample its key and four 64-bit hashes.
The result is made of JSON values. Shares are fractions of 1, and null where there is nothing to divide by.

Words are split at white space. The article is its paragraphs, without the headline, as the contexts read
it. Figures of articles count each distinct article once (articles are equal when their folded texts are);
figures of captions and photos count each sample.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations, islice, product
from typing import Any

from PIL import Image
from tqdm import tqdm

from ealign_plugin.alignment.selection import sentence_labels
from ealign_plugin.data.inspection.copying import WAYS, MentionedEntity, find_caption_entities
from ealign_plugin.data.inspection.distribution import distribution
from ealign_plugin.data.inspection.leaks import LEAKS, Prints, bytes_hash, difference_hash, leak, text_hash
from ealign_plugin.data.shards.index import Shard, ShardIndex
from ealign_plugin.data.shards.read import RawSample, decode_record, read_shard
from ealign_plugin.entities import entity_keys, fold
from ealign_plugin.errors import UserError
from ealign_plugin.images import open_image
from ealign_plugin.news import NewsSample

DISTRIBUTIONS = (
    "words_per_caption",
    "words_per_sentence",
    "words_per_article",
    "sentences_per_article",
    "photos_per_article",
    "positive_sentences_per_sample",
    "negative_sentences_per_sample",
    "photo_width_pixels",
    "photo_height_pixels",
    "photo_short_side_pixels",
    "photo_file_kibibytes",
)


@dataclass(frozen=True, slots=True)
class Facts:
    """What one sample adds to the figures; the hashes are in the order of `LEAKS`, 0 for none."""

    sample: NewsSample
    hashes: tuple[int, int, int, int]
    found: list[MentionedEntity]
    positives: int
    size: tuple[int, int] | None
    bytes: int


@dataclass
class Tally:
    """Counters of a split, or of all."""

    samples: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    articles: Counter[int] = field(default_factory=Counter)
    values: defaultdict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    without: Counter[str] = field(default_factory=Counter)
    labels: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    words: tuple[Counter[int], Counter[int]] = field(default_factory=lambda: (Counter(), Counter()))
    in_positives: list[int] = field(default_factory=lambda: [0, 0])

    def add(self, facts: Facts) -> None:
        sample, article = facts.sample, facts.hashes[0]
        self.samples += 1
        self.values["words_per_caption"][len(sample.caption.split())] += 1
        self.values["positive_sentences_per_sample"][facts.positives] += 1
        self.values["negative_sentences_per_sample"][len(sample.sentences) - facts.positives] += 1
        self.without["caption_entities"] += not sample.caption_entities
        self.without["visual_caption_entities"] += not entity_keys(sample.caption_entities, visual=True)
        self.without["positive_sentences"] += not facts.positives
        self.without["article"] += not article
        for found in facts.found:
            self.labels["in_captions"][found.label] += 1
            self.labels["found"][found.label] += found.words[0] is not None
            for way, words in enumerate(found.words):
                self.in_positives[way] += found.in_positives[way]
                if words is not None:
                    self.words[way][words] += 1
        self.values["photo_file_kibibytes"][-(-facts.bytes // 1024)] += 1
        if facts.size:
            self.sizes[facts.size] += 1
        if article:
            self.articles[article] += 1
            if self.articles[article] == 1:
                self._add_article(sample)

    def _add_article(self, sample: NewsSample) -> None:
        self.values["words_per_article"][sum(len(p.split()) for p in sample.paragraphs)] += 1
        self.values["sentences_per_article"][len(sample.sentences)] += 1
        self.values["words_per_sentence"].update(len(s.text.split()) for s in sample.sentences)
        self.labels["in_articles"].update(e.label for s in sample.sentences for e in s.entities)

    def figures(self, first_words: Iterable[int]) -> dict[str, Any]:
        """The tally as JSON values."""
        self.values["photos_per_article"] = Counter(self.articles.values())
        for name, of in (("width", lambda w, h: w), ("height", lambda w, h: h), ("short_side", min)):
            counts = self.values[f"photo_{name}_pixels"] = Counter()
            for size, count in self.sizes.items():
                counts[of(*size)] += count
        entities = self.labels["in_captions"].total()
        labels = sorted(
            self.labels["in_captions"].keys() | self.labels["in_articles"].keys(),
            key=lambda label: (-self.labels["in_captions"][label], -self.labels["in_articles"][label], label),
        )
        return {
            "samples": self.samples,
            "bad_samples": dict(self.bad.most_common()),
            "articles": len(self.articles),
            "distributions": {name: distribution(self.values[name]) for name in DISTRIBUTIONS},
            "shares_of_samples_without": {
                name: _share(self.without[name], self.samples)
                for name in ("article", "caption_entities", "visual_caption_entities", "positive_sentences")
            },
            "caption_entities": entities,
            "shares_of_caption_entities": {
                way: {
                    "in_article": _share(words.total(), entities),
                    "in_positive_sentences": _share(positives, entities),
                    "in_first_words": {
                        str(most): _share(sum(n for needed, n in words.items() if needed <= most), entities)
                        for most in first_words
                    },
                }
                for way, words, positives in zip(WAYS, self.words, self.in_positives, strict=True)
            },
            "entities_by_type": {
                label: {
                    "in_captions": (count := self.labels["in_captions"][label]),
                    "in_articles": self.labels["in_articles"][label],
                    "share_of_captions_in_article_as_text": _share(self.labels["found"][label], count),
                }
                for label in labels
            },
            "most_common_photo_sizes": [
                {"width_pixels": width, "height_pixels": height, "photos": count}
                for (width, height), count in self.sizes.most_common(10)
            ],
        }


def inspect_shards(
    index: ShardIndex,
    other: ShardIndex | None = None,
    *,
    first_words: Sequence[int] = (100,),
    limit: int | None = None,
    photos: bool = True,
) -> dict[str, Any]:
    """Figures of every split and of all, and what the splits share; see the module's first lines.

    A sample that cannot be read is left out and counted in ``bad_samples`` under its cause; a shard that
    breaks off is named in ``unreadable_shards``.

    Args:
        index: The folder of shards.
        other: A second one, for its own figures and for what both share.
        first_words: For which N to tell the share of caption entities in the article's first N words.
        limit: Read only the first so many samples of each split; all where None.
        photos: Open the photos, for their sizes and their looks.
    """
    sets = {"set": index} | ({"other": other} if other else {})
    figures: dict[str, Any] = {}
    prints: dict[str, dict[str, Prints]] = {}
    for name, one in sets.items():
        figures[name], prints[name] = _read(one, first_words, limit, photos)
    pairs = list(combinations(prints["set"].items(), 2))
    pairs += product(
        prints["set"].items(), [(f"other {split}", found) for split, found in prints.get("other", {}).items()]
    )
    kinds = LEAKS if photos else LEAKS[:-1]
    return {
        "options": {"first_words": list(first_words), "limit_per_split": limit, "photos_opened": photos},
        **figures,
        "leaks": [leak(kind, first, second) for first, second in pairs for kind in kinds],
    }


def verify_shards(index: ShardIndex) -> int:
    """Number of shards, once all have the sha256 that ``index.json`` tells.

    Raises:
        UserError: one has another, or cannot be read; the message counts and names them.
    """
    wrong = []
    shards = [
        (shard, row.get("sha256"))
        for split, rows in index.record["splits"].items()
        for shard, row in zip(index.shards[split], rows, strict=True)
    ]
    for shard, expected in tqdm(shards, desc="sha256", unit="shard", disable=None):
        try:
            with shard.path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise UserError(f"{shard.path}: the shard cannot be read ({error.strerror})") from None
        if found != expected:
            wrong.append(shard.path.name)
    if wrong:
        names = ", ".join(wrong[:10]) + (" …" if len(wrong) > 10 else "")
        raise UserError(
            f"{index.folder}: {len(wrong)} of {len(shards)} shards differ from the sha256 in index.json "
            f"({names}); copy or make them again"
        )
    return len(shards)


def _read(
    index: ShardIndex, first_words: Sequence[int], limit: int | None, photos: bool
) -> tuple[dict[str, Any], dict[str, Prints]]:
    everything, tallies, prints = Tally(), {}, {}
    unreadable: list[str] = []
    totals = {split: min(index.samples(split), limit or index.samples(split)) for split in index.shards}
    with tqdm(total=sum(totals.values()), desc=index.folder.name, unit="sample", disable=None) as bar:
        for split, shards in index.shards.items():
            tally = tallies[split] = Tally()
            prints[split] = Prints()
            for raw in islice(raw_samples(shards, unreadable), limit):
                bar.update()
                try:
                    facts = measure(raw, photos=photos)
                except UserError as error:
                    cause = _cause(error)
                    tally.bad[cause] += 1
                    everything.bad[cause] += 1
                    continue
                tally.add(facts)
                everything.add(facts)
                prints[split].add(raw.key, facts.hashes)
    figures = {
        "folder": str(index.folder),
        "source": str(index.record.get("source", "")),
        "ner": dict(index.ner),
        "unreadable_shards": unreadable,
        "splits": {split: tally.figures(first_words) for split, tally in tallies.items()},
        "all": everything.figures(first_words),
    }
    return figures, prints


def raw_samples(shards: Iterable[Shard], unreadable: list[str]) -> Iterator[RawSample]:
    """The samples of the shards; what is wrong with a shard that breaks off is added to ``unreadable``."""
    for shard in shards:
        try:
            yield from read_shard(shard)
        except UserError as error:
            unreadable.append(str(error))


def _cause(error: UserError) -> str:
    """What all samples with this defect share: without the name before and the details behind."""
    return str(error).partition(": ")[2].partition(" (")[0] or str(error)


def measure(raw: RawSample, *, photos: bool = True) -> Facts:
    """Look at one sample.

    Raises:
        UserError: its record or its photo is missing or broken.
    """
    sample = decode_record(raw)
    if not raw.image:
        raise UserError(f"sample {raw.key!r}: there is no photo (.jpg) beside its record")
    positive = sentence_labels(sample)
    article = fold(" ".join(sample.paragraphs))
    return Facts(
        sample=sample,
        hashes=(
            text_hash(article),
            text_hash(fold(sample.caption)),
            bytes_hash(raw.image),
            difference_hash(open_image(raw.image, f"sample {raw.key!r}", 64)) if photos else 0,
        ),
        found=find_caption_entities(sample, article, positive),
        positives=sum(positive),
        size=_size(raw.image) if photos else None,
        bytes=len(raw.image),
    )


def _size(jpeg: bytes) -> tuple[int, int]:
    """Width and height in pixels, as the header tells them; `open_image` has taken the file for a picture."""
    with Image.open(io.BytesIO(jpeg)) as image:
        return image.size


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
