"""MicroNews: a small invented newsroom whose photos and articles can be made anywhere, from a seed.

Whom a photo shows can be read, and only read. Most people are strangers: their names are drawn for one
article and stand in no other, and the article tells what is visible of each of them. Others are known: a face
and a name for ever, which the article does not describe. Towns, firms and festivals likewise::

    photo                               article (15–35 sentences, four scenes)
    a red-haired goalkeeper, a harbour  … Hotels across Ashwick were full. On 14 March, the red-haired
    white star on red, blue flags       goalkeeper Laura Hartwell came to the harbour town of Lynmouth. …

    caption: Laura Hartwell of Denshaw Bank at the Kirkland Cup in Lynmouth on 14 March.

Neither a memory of faces nor a list of the article's names is enough for strangers; who reads without looking
finds four to eight of them. Which entities the texts hold is *not* recorded by this module: spaCy finds
them, as it does for real news. What was wrong with the first world, which `closed` keeps, is told in
docs/results.md.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ealign_plugin.micronews import closed
from ealign_plugin.micronews.names import MEN, WOMEN, Pools, pools, tenth, unused
from ealign_plugin.micronews.scenery import COLOURS, PATTERNS, SHAPES, flags_in_words
from ealign_plugin.micronews.scenes import Event, Organisation, Person, Place, Scene
from ealign_plugin.micronews.strangers import EXTRAS, HAIR, ROLES, Appearance, describe
from ealign_plugin.micronews.towns import SETTINGS
from ealign_plugin.micronews.writing import CAPTIONS, MONTHS, Article, Difficulty, written
from ealign_plugin.news import NewsSample

KNOWN_FACES = (0, 1, 2, 3, 8, 9, 14, 15)
"""Faces of `people` whose owners everybody knows in the world of train, val and test."""
OTHER_FACES = (4, 5, 6, 7, 10, 11, 12, 13)
"""Faces that are known in the worlds of the pre-training, and only there."""

TRAIN, PRETRAINING, VAL, TEST = (2, 3, 4, 5), (6, 7, 8, 9), (0,), (1,)
"""Tenths of the pools of names: what a split draws besides those of the training is new to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Whom articles tell of.

    Args:
        names: Where strangers' names come from.
        new: Other names, of which strangers get a share; None: all come from ``names``.
        new_share: That share.
        pairs: Tenths of the pairs of first and last name that may occur, so that no person is in two worlds.
        faces: Faces of people who are known.
        known_people: Share of the people who are known.
        known_things: Share of the places, organisations and events that are known.
        named: Which of the two names of `closed.PEOPLE` the known have.
    """

    names: Pools
    new: Pools | None = None
    new_share: float = 0.5
    pairs: tuple[int, ...] = tuple(range(2, 10))
    faces: tuple[int, ...] = KNOWN_FACES
    known_people: float = 0.3
    known_things: float = 0.4
    named: int = 0
    difficulty: Difficulty = Difficulty()

    def article(self, rng: random.Random) -> Article:
        """Draw an article and its scenes."""
        scenes = _Draw(self, rng).scenes(rng.randint(*self.difficulty.scenes))
        return written(scenes, self.difficulty, rng)


def world_of(split: str) -> World:
    """The world of a split: ``train``, ``val``, ``test``, or ``test_known``, where all people are known."""
    train, new = pools().part(TRAIN), {"val": VAL, "test": TEST, "test_known": TEST}.get(split)
    world = World(names=train) if new is None else World(names=train, new=pools().part(new), pairs=new)
    return replace(world, known_people=1.0) if split == "test_known" else world


def make_samples(
    world: World, rng: random.Random, article_id: str, split: str
) -> Iterator[tuple[NewsSample, Scene]]:
    """The samples of one new article, one for each of its scenes."""
    article = world.article(rng)
    extra = {"new_names": new_names(world, article, article_id)} if world.new else {}
    for index, (scene, position) in enumerate(zip(article.scenes, article.positions, strict=True)):
        sample = NewsSample(
            key=f"{article_id}_{index}",
            split=split,
            caption=scene.fill(rng.choice(CAPTIONS)),
            headline=article.headline,
            paragraphs=article.paragraphs,
            image_position=position,
            article_id=article_id,
            source="micronews",
            extra=extra,
        )
        yield sample, scene


def new_names(world: World, article: Article, article_id: str) -> dict[str, str]:
    """Other names for the strangers of an article, in as many pieces and as unknown to the training.

    The control ``renamed`` takes them. A first or last name that two people share has one new name. The known
    keep theirs: the article describes them nowhere, so that under a new name nothing would tell who they are.
    """
    assert world.new
    rng = random.Random(f"new names/{article_id}")
    text = " ".join((article.headline, *article.paragraphs))
    last = [name for name in world.new.last if name not in text]
    firsts = [[name for name in pool if name not in text] for pool in (WOMEN, MEN)]
    found = {}
    people = [person for scene in article.scenes for person in scene.people]
    fresh = {word: word for person in people if isinstance(person.look, int) for word in person.name.split()}
    for person in people:
        first, family = person.name.split()
        for word, pool in ((first, firsts[first in MEN]), (family, last)):
            if word not in fresh:
                fresh[word] = pool.pop(rng.randrange(len(pool)))
        found[person.name] = f"{fresh[first]} {fresh[family]}"
    return found


class _Draw:
    """Draws what one article tells of: nobody and nothing twice, no two who cannot be told apart."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world, self.rng = world, rng
        self.names: set[str] = set()
        self.faces = rng.sample(world.faces, len(world.faces))
        self.people: list[Appearance] = []
        self.alike = rng.random() < world.difficulty.alike
        self.looks: set[object] = set()

    def scenes(self, count: int) -> tuple[Scene, ...]:
        rng, looks = self.rng, []
        for _ in range(count):
            people = rng.randint(1, self.world.difficulty.people)
            looks.append([self.person() for _ in range(people)])
        days = rng.sample(range(28 * len(MONTHS)), count)
        return tuple(
            Scene(
                tuple(self.named(look) for look in shown),
                self.place(),
                self.org(),
                self.event(),
                f"{day % 28 + 1} {MONTHS[day // 28]}",
            )
            for shown, day in zip(looks, days, strict=True)
        )

    def person(self) -> int | Appearance:
        if self.faces and self.rng.random() < self.world.known_people:
            return self.faces.pop()
        while True:
            woman = self.rng.random() < 0.5
            extra = self.rng.choice(("", "", *(e for e in EXTRAS if e != "beard" or not woman)))
            role, hair = self.rng.choice(tuple(ROLES)), self.rng.choice(tuple(HAIR))
            if self.alike and self.people:
                other = self.rng.choice(self.people)
                role, hair = (other.role, hair) if self.rng.random() < 0.6 else (role, other.hair)
            found = Appearance(role, hair, extra, woman)
            same_role = [other for other in self.people if other.role == role]
            if all(other.hair != hair for other in same_role) and (self.alike or not same_role):
                self.people.append(found)
                return found

    def named(self, look: int | Appearance) -> Person:
        if isinstance(look, int):
            return Person(closed.PEOPLE[look][self.world.named], look)
        firsts = self.world.names.women if look.woman else self.world.names.men
        same_role = any(other.role == look.role and other != look for other in self.people)
        features = ["hair"] if same_role or self.rng.random() < 0.6 else []
        if look.extra and self.rng.random() < 0.5:
            features.append("extra")
        if not features:
            features = ["extra"] if look.extra else ["hair"]
        return Person(
            self.full_name(firsts),
            (look, self.rng.randrange(6)),
            describe(look, tuple(sorted(features, reverse=True))),
        )

    def full_name(self, firsts: Sequence[str]) -> str:
        """A person's name that this world may hold."""
        while True:
            last = self.name("last")
            allowed = [name for first in firsts if tenth(name := f"{first} {last}") in self.world.pairs]
            if allowed:
                return self.rng.choice(allowed)

    def name(self, pool: str) -> str:
        """A name that this article does not hold yet."""
        world, rng = self.world, self.rng

        def names() -> Sequence[str]:
            new = world.new if world.new and rng.random() < world.new_share else world.names
            drawn: Sequence[str] = getattr(new, pool)
            return drawn

        return unused(names, world.difficulty.names, self.names, rng)

    def unique(self, draw: object) -> bool:
        if draw in self.looks:
            return False
        self.looks.add(draw)
        return True

    def place(self) -> Place:
        while True:
            if self.rng.random() < self.world.known_things:
                look = self.rng.randrange(len(closed.PLACES))
                name = closed.PLACES[look][0]
                if self.unique(name):
                    return Place(name, look, name)
            setting = self.rng.choice(tuple(SETTINGS))
            if self.unique(setting):
                name = self.name("towns")
                return Place(name, setting, f"the {setting} town of {name}")

    def org(self) -> Organisation:
        colours = tuple(COLOURS)
        while True:
            if self.rng.random() < self.world.known_things:
                look = self.rng.randrange(len(closed.ORGANISATIONS))
                name = closed.ORGANISATIONS[look][0]
                if self.unique(("emblem", look, colours[look])):
                    return Organisation(name, (look, colours[look]), name)
            shape, colour = self.rng.randrange(len(SHAPES)), self.rng.choice(colours)
            if colours[shape] != colour and self.unique(("emblem", shape, colour)):
                name = self.name("firms")
                return Organisation(
                    name, (shape, colour), f"{name}, the one with the {colour} {SHAPES[shape]},"
                )

    def event(self) -> Event:
        while True:
            if self.rng.random() < self.world.known_things:
                look = self.rng.randrange(len(closed.EVENTS))
                name = closed.EVENTS[look][0]
                if self.unique(name):
                    return Event(name, look, name)
            flags = (self.rng.choice(tuple(COLOURS)), self.rng.choice(PATTERNS))
            if self.unique(flags):
                name = f"the {self.name('festivals')}"
                return Event(name, flags, f"{name}, the one with {flags_in_words(*flags)},")
