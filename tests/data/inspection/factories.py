"""Samples and photos whose figures can be counted by hand, as shards."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from ealign_plugin.data.shards.index import ShardIndex
from ealign_plugin.news import Entity, NewsSample, Sentence
from tests.factories import write_shards

LABELS = {"Ana Ruiz": "PERSON", "Bob": "PERSON", "Oslo": "GPE", "May ": "DATE"}


def named(text: str) -> tuple[Entity, ...]:
    return tuple(
        Entity(name.strip(), label, text.index(name)) for name, label in LABELS.items() if name in text
    )


def sample(
    key: str, split: str, caption: str, *paragraphs: tuple[str, ...], found: bool = True
) -> NewsSample:
    """A sample whose paragraphs are given sentence by sentence; without entities there if not ``found``."""
    texts = [" ".join(sentences) for sentences in paragraphs]
    return NewsSample(
        key=key,
        split=split,
        caption=caption,
        caption_entities=named(caption),
        paragraphs=tuple(texts),
        sentences=tuple(
            Sentence(sentence, number, texts[number].index(sentence), named(sentence) if found else ())
            for number, sentences in enumerate(paragraphs)
            for sentence in sentences
        ),
    )


def picture(seed: int, size: tuple[int, int] = (64, 48)) -> bytes:
    """A JPEG file of random soft patches."""
    patches = np.random.default_rng(seed).integers(0, 255, (8, 9, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(patches).resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def write(folder, samples: list[tuple[NewsSample, bytes]]) -> ShardIndex:
    splits = dict.fromkeys(one.split for one, _ in samples)
    pairs = {split: [pair for pair in samples if pair[0].split == split] for split in splits}
    return write_shards(folder, pairs, source="hand")
