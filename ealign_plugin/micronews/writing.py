"""The articles of the open world: a few sentences about each scene, among others that are about no photo."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ealign_plugin.micronews.closed import FILLER, MONTHS
from ealign_plugin.micronews.scenes import Scene

CAPTIONS = (
    "{people} of {org} at {event} in {place} on {date}.",
    "{people} of {org} in {place} for {event} on {date}.",
)
# Who, with what is visible of them, beside the date: who reads the right sentence has both.
INTRODUCTIONS = (
    "On {date}, {people} came to {place}.",
    "On {date}, {people} arrived at {event}.",
    "On {date}, guests saw {people} with a team from {org}.",
    "{people} opened {event} on {date}.",
    "{people} came to {place} on {date}.",
)
TOLD = (
    "{org} sent a large team to {place}.",
    "{place} is hosting {event} for the first time.",
    "A spokesperson for {org} praised the mood at {event}.",
    "Volunteers from {org} handed out water.",
    "{org} paid for most of the tents.",
    "Hotels across {place} were full.",
    "The people of {place} had waited for years.",
    "Tickets for {event} were sold out.",
    "Children drew pictures of {event} at school.",
)
# Only names: nobody can tell from such a sentence alone whether the photo shows a stranger.
REMARKS = (
    "{people} asked visitors to be patient.",
    "{people} thanked everybody who had helped.",
    "Nobody had expected {people} to stay for so long.",
    "{people} gave a short speech.",
)
HEADLINES = (
    "{event} begins in {place}",
    "{org} comes to {place}",
    "{people} at {event}",
    "A busy week for {place}",
)

NEAR = 0.3  # of the photos stand within a paragraph of the one that begins their story


@dataclass(frozen=True, slots=True, kw_only=True)
class Difficulty:
    """How much there is to read and to tell apart.

    Args:
        scenes: Scenes of an article, least and most.
        people: People of a scene, most.
        names: Share of the pools of names from which strangers' are drawn.
        fillers: Sentences that are about no photo, least and most.
        alike: Share of the articles in which two strangers share role or hair.
        remarks: Share of the scenes with a sentence of names alone.
        after: Share of the introductions that describe a stranger behind the name, not before it.
    """

    scenes: tuple[int, int] = (4, 4)
    people: int = 2
    names: float = 1.0
    fillers: tuple[int, int] = (2, 9)
    alike: float = 0.3
    remarks: float = 0.6
    after: float = 0.1


class Article(NamedTuple):
    """An article and the photos in it.

    Args:
        headline: The headline.
        paragraphs: The text.
        scenes: What each photo shows.
        positions: Of each photo, the index of the paragraph before which it stands.
    """

    headline: str
    paragraphs: tuple[str, ...]
    scenes: tuple[Scene, ...]
    positions: tuple[int, ...]


def written(scenes: Sequence[Scene], difficulty: Difficulty, rng: random.Random) -> Article:
    """Headline and paragraphs, and where the photos stand among them."""
    blocks: list[tuple[int | None, list[str]]] = []
    for index, scene in enumerate(scenes):
        sentences = _sentences_about(scene, difficulty, rng)
        stray = [sentences.pop()] if len(sentences) > 3 and rng.random() < 0.5 else []
        blocks += [(index, block) for block in (sentences, stray) if block]
    filler = rng.randint(*difficulty.fillers)
    while filler > 0:
        length = min(filler, rng.randint(1, 3))
        blocks.append((None, [_filler(rng) for _ in range(length)]))
        filler -= length
    rng.shuffle(blocks)
    about = [scene for scene, _ in blocks]
    positions = tuple(_position(about.index(index), len(blocks), rng) for index in range(len(scenes)))
    headline = rng.choice(scenes).fill(rng.choice(HEADLINES))
    return Article(headline, tuple(" ".join(block) for _, block in blocks), tuple(scenes), positions)


def _position(story: int, paragraphs: int, rng: random.Random) -> int:
    """Where a photo stands: near its story often enough to help, too seldom to tell whom it shows."""
    place = rng.random()
    if place < NEAR:
        return min(paragraphs, max(0, story - 1 + int(4 * place / NEAR)))
    return 0 if place < 0.5 else rng.randrange(paragraphs + 1)


def _sentences_about(scene: Scene, difficulty: Difficulty, rng: random.Random) -> list[str]:
    """The introduction, and a few sentences that together describe everything else in the scene."""
    chosen = [rng.choice(INTRODUCTIONS)]
    missing = {"place", "org", "event"} - {slot for slot in _SLOTS[chosen[0]] if slot != "people"}
    while missing:
        template = rng.choice([t for t in TOLD if t not in chosen and missing & set(_SLOTS[t])])
        chosen.append(template)
        missing -= set(_SLOTS[template])
    if rng.random() < difficulty.remarks:
        chosen.append(rng.choice(REMARKS))
    if rng.random() < 0.4:
        chosen.append(rng.choice([t for t in TOLD if t not in chosen]))
    told: set[str] = set()
    sentences = []
    for template in chosen:
        # What is visible of something is told where it is first spoken of, and sometimes again.
        new = [slot for slot in _SLOTS[template] if slot not in told or rng.random() < 0.3]
        if template in REMARKS:
            new = []
        sentences.append(scene.fill(template, new, rng, difficulty.after))
        told |= set(new)
    rng.shuffle(sentences)
    return sentences


def _slots(template: str) -> tuple[str, ...]:
    return tuple(slot for slot in ("people", "place", "org", "event") if f"{{{slot}}}" in template)


_SLOTS: Mapping[str, tuple[str, ...]] = {
    template: _slots(template) for template in (*INTRODUCTIONS, *TOLD, *REMARKS)
}


def _filler(rng: random.Random) -> str:
    return rng.choice(FILLER).format(n=rng.randint(2, 90), month=rng.choice(MONTHS))
