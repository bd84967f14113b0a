"""What the ``micro`` model is taught before it meets MicroNews: to see, to find, and to copy new names.

A lesson is a photo, a prompt and an answer. Photos and texts come from worlds of their own (other seeds,
other names, other known faces) and none of the alignment tasks is among them::

    see       photo               "Describe this news photo:"           the red-haired judge; harbour; …
    find      a list of people    (the list alone)                      the judge Laura Hartwell and the …
    name      photo, article      "Who is in this news photo?"          the red-haired judge Laura Hartwell
    caption   photo, article      the caption prompt of the templates   Laura Hartwell of Denshaw Bank …

Difficulty grows, and only when what came before is mastered: with all scenes and names at once, or with more
of them before two people in a list are told apart, nobody's own name was ever found (half right, whatever
the time).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

from ealign_plugin.alignment.prompts import Prompt, Wording
from ealign_plugin.micronews.names import pools, unused
from ealign_plugin.micronews.scenery import SHAPES, flags_in_words
from ealign_plugin.micronews.scenes import Event, Organisation, Person, Place, Scene, introduced
from ealign_plugin.micronews.strangers import describe
from ealign_plugin.micronews.world import OTHER_FACES, PRETRAINING, World
from ealign_plugin.micronews.writing import CAPTIONS, Article, Difficulty, written

SEE = "Describe this news photo:"
FIND = "{context}"
"""The list alone: what stands between it and the answer makes it harder to learn who is who."""
NAME = "Article: {context} Who is in this news photo?"
BRIEF = "On {date}, {people} came to {place} for {event} with {org}."
"""An article that holds nothing but what a caption needs has one such sentence for each scene."""


class Lesson(NamedTuple):
    """Something to learn.

    Args:
        kind: ``see``, ``find``, ``name`` or ``caption``.
        photo: Index of the photo.
        prompt: What is asked.
        target: The answer.
    """

    kind: str
    photo: int
    prompt: Prompt
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What is taught until it is mastered.

    Args:
        shares: Kind of lesson → its share.
        at_most: Part of all steps after which the next stage begins all the same.
        mastered: Kind of lesson and its loss, from which on the next stage begins.
        pairs: People of a list, least and most.
        names: Share of the pools of names.
        described: Share of the lists that tell more of a person than the role.
        scenes: Scenes in an article, least and most.
        fillers: Sentences that are about no photo, at most.
        brief: Share of the articles with one sentence a scene.
        after: Share of the people who are described behind their name.
    """

    shares: dict[str, float]
    at_most: float = 1.0
    mastered: tuple[str, float] = ("", 0.0)
    pairs: tuple[int, int] = (3, 6)
    names: float = 1.0
    described: float = 1.0
    scenes: tuple[int, int] = (1, 1)
    fillers: int = 0
    brief: float = 1.0
    after: float = 0.0


STAGES = (
    Stage(
        shares={"find": 1.0}, at_most=0.12, mastered=("find", 0.22), pairs=(2, 2), names=0.08, described=0.0
    ),
    Stage(
        shares={"find": 1.0}, at_most=0.1, mastered=("find", 0.27), pairs=(2, 3), names=0.15, described=0.0
    ),
    Stage(shares={"find": 1.0}, at_most=0.1, mastered=("find", 0.2), pairs=(2, 4), names=0.3, described=0.0),
    Stage(shares={"find": 1.0}, at_most=0.08, mastered=("find", 0.19), pairs=(3, 5), described=0.0),
    Stage(shares={"see": 0.6, "find": 0.4}, at_most=0.1, mastered=("see", 0.08), pairs=(3, 6), described=0.5),
    Stage(
        shares={"see": 0.3, "find": 0.1, "name": 0.25, "caption": 0.35},
        at_most=0.08,
        mastered=("caption", 0.1),
    ),
    Stage(
        shares={"see": 0.2, "find": 0.1, "name": 0.3, "caption": 0.4},
        at_most=0.12,
        mastered=("caption", 0.15),
        scenes=(1, 2),
    ),
    Stage(
        shares={"see": 0.15, "find": 0.05, "name": 0.25, "caption": 0.55},
        at_most=0.12,
        mastered=("caption", 0.2),
        scenes=(1, 3),
        brief=0.7,
        after=0.1,
    ),
    Stage(
        shares={"see": 0.15, "find": 0.05, "name": 0.15, "caption": 0.65},
        scenes=(1, 3),
        fillers=4,
        brief=0.15,
        after=0.1,
    ),
)


T = TypeVar("T", Place, Organisation, Event)


def pretraining_world(seed: int) -> World:
    """A world of the pre-training: none of its names or known faces is in train, val or test."""
    names = pools().part(PRETRAINING)
    return World(names=names, faces=OTHER_FACES, known_people=0.1, known_things=0.0, named=seed % 2)


def renamed(scenes: Sequence[Scene], world: World, rng: random.Random) -> tuple[Scene, ...]:
    """The same photos with other strangers' names, dates and articles."""
    used: set[str] = set()

    def name(pool: Sequence[str]) -> str:
        return unused(lambda: pool, world.difficulty.names, used, rng)

    def person(known: Person) -> Person:
        if isinstance(known.look, int):
            return known
        look = known.look[0]
        firsts = world.names.women if look.woman else world.names.men
        return known._replace(name=f"{rng.choice(firsts)} {name(world.names.last)}")

    def thing(known: T, pool: Sequence[str], article: str = "") -> T:
        if known.described == known.name:
            return known
        new = article + name(pool)
        return known._replace(name=new, described=known.described.replace(known.name, new))

    return tuple(
        replace(
            scene,
            people=tuple(map(person, scene.people)),
            place=thing(scene.place, world.names.towns),
            org=thing(scene.org, world.names.firms),
            event=thing(scene.event, world.names.festivals, "the "),
            date=f"{rng.randint(1, 28)} {scene.date.split()[1]}",
        )
        for scene in scenes
    )


def description(scene: Scene) -> str:
    """What a photo shows, in words."""
    people = " and ".join(_seen(person) for person in scene.people)
    (shape, colour), flags = scene.org.look, scene.event.look
    event = "" if isinstance(flags, int) else flags_in_words(*flags)
    return f"{people}; {scene.place.look} town; {colour} {SHAPES[shape]}; {event}"


def _seen(person: Person) -> str:
    if isinstance(person.look, int):
        return person.name
    look = person.look[0]
    return f"the {describe(look, ('hair', 'extra') if look.extra else ('hair',))}"


def _role(stranger: Person) -> str:
    return stranger.description.split()[-1]


class Lessons:
    """Endless lessons about a list of articles whose photos are drawn already.

    Args:
        articles: The scenes of each; the photo of scene j of article i is number ``offsets[i] + j``.
        world: Where their names come from.
        wording: How captions are asked for.
    """

    def __init__(self, articles: Sequence[Sequence[Scene]], world: World, wording: Wording) -> None:
        self.articles, self.world, self.wording = articles, world, wording
        self.offsets = [0]
        for scenes in articles:
            self.offsets.append(self.offsets[-1] + len(scenes))

    def batch(self, stage: Stage, size: int, rng: random.Random) -> list[Lesson]:
        """So many lessons; two are about each photo, and all that need none share one."""
        lessons: list[Lesson] = []
        blank = rng.randrange(self.offsets[-1])
        while len(lessons) < size:
            lessons += self.draw(stage, blank, rng)
        return lessons[:size]

    def draw(self, stage: Stage, blank: int, rng: random.Random) -> list[Lesson]:
        """Two lessons about one photo, each with an article of its own.

        Args:
            stage: What is taught.
            blank: Photo of the lessons that need none.
            rng: Where all draws come from.
        """
        number = rng.randrange(len(self.articles))
        which = rng.randrange(len(self.articles[number]))
        difficulty = Difficulty(names=stage.names, fillers=(0, stage.fillers), after=stage.after)
        world = replace(self.world, difficulty=difficulty)
        drawn = []
        for kind in rng.choices(list(stage.shares), list(stage.shares.values()), k=2):
            if kind == "find":
                drawn.append(self.find(stage, blank, world, rng))
                continue
            others = [index for index in range(len(self.articles[number])) if index != which]
            count = min(rng.randint(*stage.scenes), 1 + len(others))
            chosen = [which, *rng.sample(others, count - 1)]
            scenes = renamed([self.articles[number][index] for index in chosen], world, rng)
            photo = self.offsets[number] + which
            if kind == "see":
                drawn.append(Lesson(kind, photo, Prompt(SEE, SEE), description(scenes[0])))
            else:
                context = self._context(scenes, difficulty, rng, brief=rng.random() < stage.brief)
                drawn.append(self._read(kind, photo, scenes[0], context))
        return drawn

    def _context(
        self, scenes: Sequence[Scene], difficulty: Difficulty, rng: random.Random, brief: bool
    ) -> str:
        """What is read: one sentence a scene, or a whole article."""
        if not brief:
            return " ".join(written(scenes, difficulty, rng).paragraphs)
        everything = ("people", "place", "org", "event")
        told = [scene.fill(BRIEF, everything, rng, difficulty.after) for scene in scenes]
        rng.shuffle(told)
        return " ".join(told)

    def _read(self, kind: str, photo: int, scene: Scene, context: str) -> Lesson:
        """The lesson of this kind about a photo and an article."""
        if kind == "caption":
            return Lesson(kind, photo, self.wording.caption(context), scene.fill(CAPTIONS[0]))
        people = " and ".join(
            person.name if isinstance(person.look, int) else f"{_seen(person)} {person.name}"
            for person in scene.people
        )
        return Lesson(kind, photo, self.wording.fill(NAME, "{context}", context), people)

    def find(self, stage: Stage, photo: int, world: World, rng: random.Random) -> Lesson:
        """Some people in a list, asked for in another order; the photo is of no use."""
        count = rng.randint(*stage.pairs)
        listed: dict[str, Person] = {}
        while len(listed) < count:
            scenes = renamed(rng.choice(self.articles), world, rng)
            for person in (person for scene in scenes for person in scene.people if person.description):
                if len(listed) < count and person.name not in {other.name for other in listed.values()}:
                    listed.setdefault(_role(person), person)
        people = list(listed.values())
        if rng.random() >= stage.described:
            people = [person._replace(description=_role(person)) for person in people]
        rng.shuffle(people)
        context = " and ".join(introduced(person, rng, stage.after) for person in people)
        rng.shuffle(people)
        prompt = self.wording.fill(FIND, "{context}", context)
        found = " and ".join(introduced(person, rng, 0.0) for person in people)
        return Lesson("find", photo, prompt, found)


def draw_articles(world: World, count: int, rng: random.Random) -> Iterator[Article]:
    """Articles whose scenes are taught."""
    for _ in range(count):
        yield world.article(rng)
