"""What the ``micro`` model is taught before it meets MicroNews: to see, to find, and to copy new names.

A lesson is a prompt and an answer, and a photo but where the language model learns alone. Photos and texts
come from worlds of their own (other seeds, other names, other known faces) and none of the alignment tasks is
among them::

    find      a list of people    (the list alone)                      the judge Laura Hartwell and the …
    see       photo               "Describe this news photo:"           the red-haired judge; harbour; …
    match     photo, a phrase     "Does this news photo show …?"        yes
    name      photo, article      "Who is in this news photo?"          the red-haired judge Laura Hartwell
    caption   photo, article      the caption prompt of the templates   Laura Hartwell of Denshaw Bank …

Difficulty grows: with all scenes and names at once nobody's own name was ever found (half right, whatever the
time). Lists are read without a photo, because behind image tokens, even constant ones, they were not learnt;
and what a photo shows or not begins with the towns alone: all phrases at once stay at chance for long.
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
from ealign_plugin.micronews.strangers import EXTRAS, describe
from ealign_plugin.micronews.world import OTHER_FACES, PRETRAINING, World
from ealign_plugin.micronews.writing import CAPTIONS, Article, Difficulty, written

SEE = "Describe this news photo:"
FIND = "{context}"
"""The list alone: what stands between it and the answer makes it harder to learn who is who."""
MATCH = "Does this news photo show {context}?"
NAME = "Article: {context} Who is in this news photo?"
BRIEF = "On {date}, {people} came to {place} for {event} with {org}."
"""An article that holds nothing but what a caption needs has one such sentence for each scene."""


class Lesson(NamedTuple):
    """Something to learn.

    Args:
        kind: ``find``, ``see``, ``match``, ``name`` or ``caption``.
        photo: Index of the photo; None: there is none.
        prompt: What is asked.
        target: The answer.
    """

    kind: str
    photo: int | None
    prompt: Prompt
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What is taught for a while.

    Args:
        part: Of all steps.
        shares: Kind of lesson → its share.
        pairs: People of a list, least and most.
        described: Share of the lists that tell more of a person than the role.
        about: What a phrase tells of that is shown or not, in a photo: people, place, org, event.
        scenes: Scenes in an article, least and most.
        fillers: Sentences that are about no photo, at most.
        brief: Share of the articles with one sentence a scene.
        after: Share of the people who are described behind their name.
    """

    part: float
    shares: dict[str, float]
    pairs: tuple[int, int] = (3, 6)
    described: float = 1.0
    about: tuple[str, ...] = ("people", "people", "place", "org", "event")
    scenes: tuple[int, int] = (1, 1)
    fillers: int = 0
    brief: float = 1.0
    after: float = 0.0


STAGES = (
    Stage(part=0.16, shares={"find": 1}, pairs=(3, 5), described=0.0),
    Stage(part=0.07, shares={"find": 0.1, "see": 0.9}, described=0.5),
    Stage(part=0.06, shares={"find": 0.1, "see": 0.3, "match": 0.6}, about=("place",)),
    Stage(part=0.12, shares={"find": 0.1, "see": 0.3, "match": 0.6}),
    Stage(part=0.08, shares={"find": 0.1, "see": 0.1, "match": 0.2, "name": 0.2, "caption": 0.4}),
    Stage(
        part=0.1,
        shares={"find": 0.05, "see": 0.1, "match": 0.2, "name": 0.2, "caption": 0.45},
        scenes=(1, 2),
    ),
    Stage(
        part=0.14,
        shares={"find": 0.05, "see": 0.1, "match": 0.2, "name": 0.2, "caption": 0.45},
        scenes=(1, 3),
        brief=0.7,
        after=0.1,
    ),
    Stage(
        part=0.27,
        shares={"find": 0.05, "see": 0.1, "match": 0.2, "name": 0.15, "caption": 0.5},
        scenes=(1, 4),
        fillers=4,
        brief=0.15,
        after=0.1,
    ),
)


def stage_at(step: int, steps: int) -> Stage:
    """The stage that a step belongs to."""
    ends = 0.0
    for stage in STAGES:
        ends += stage.part
        if step < ends * steps:
            return stage
    return STAGES[-1]


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


def _phrases(scene: Scene) -> dict[str, list[str]]:
    """What is told of a scene beside names, by what it tells of: people, place, organisation, event."""
    (shape, colour), flags = scene.org.look, scene.event.look
    return {
        "people": [f"the {person.description}" for person in scene.people if person.description],
        "place": [] if isinstance(scene.place.look, int) else [f"the {scene.place.look} town"],
        "org": [f"the {colour} {SHAPES[shape]}"],
        "event": [] if isinstance(flags, int) else [flags_in_words(*flags)],
    }


def _is_shown(phrase: str, scene: Scene) -> bool:
    """Whether a phrase of `_phrases` is true of a scene, its own or not."""
    words = set(phrase.replace(",", "").split()[1:])
    looks = [person.look[0] for person in scene.people if not isinstance(person.look, int)]
    return any(phrase in phrases for phrases in _phrases(scene).values()) or any(
        words <= {f"{look.hair}-haired", EXTRAS.get(look.extra, ""), look.role} for look in looks
    )


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
        """So many lessons; two are about each photo."""
        lessons: list[Lesson] = []
        while len(lessons) < size:
            lessons += self.draw(stage, rng)
        return lessons[:size]

    def draw(self, stage: Stage, rng: random.Random) -> list[Lesson]:
        """Two lessons about one photo, each with an article of its own."""
        number = rng.randrange(len(self.articles))
        which = rng.randrange(len(self.articles[number]))
        difficulty = Difficulty(fillers=(0, stage.fillers), after=stage.after)
        world = replace(self.world, difficulty=difficulty)
        photo, scene = self.offsets[number] + which, self.articles[number][which]
        drawn = []
        for kind in rng.choices(list(stage.shares), list(stage.shares.values()), k=2):
            if kind == "find":
                drawn.append(self.find(stage, world, rng))
            elif kind == "see":
                drawn.append(Lesson(kind, photo, Prompt(SEE, SEE), description(scene)))
            elif kind == "match":
                drawn.append(self.match(stage, photo, scene, self.articles[number], rng))
            else:
                others = [index for index in range(len(self.articles[number])) if index != which]
                count = min(rng.randint(*stage.scenes), 1 + len(others))
                chosen = [which, *rng.sample(others, count - 1)]
                scenes = renamed([self.articles[number][index] for index in chosen], world, rng)
                context = self._context(scenes, difficulty, rng, brief=rng.random() < stage.brief)
                drawn.append(self._read(kind, photo, scenes[0], context))
        return drawn

    def match(
        self, stage: Stage, photo: int, scene: Scene, article: Sequence[Scene], rng: random.Random
    ) -> Lesson:
        """A phrase, and whether the photo shows it; if not, it is of the same article or of any other."""
        wanted = rng.random() < 0.5
        while True:
            other = scene if wanted else rng.choice(rng.choice((article, rng.choice(self.articles))))
            about = rng.choice(stage.about)
            found = [text for text in _phrases(other)[about] if _is_shown(text, scene) == wanted]
            if found:
                prompt = self.wording.fill(MATCH, "{context}", rng.choice(found))
                return Lesson("match", photo, prompt, "yes" if wanted else "no")

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

    def find(self, stage: Stage, world: World, rng: random.Random) -> Lesson:
        """Some people in a list, asked for in another order."""
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
        return Lesson("find", None, prompt, found)


def draw_articles(world: World, count: int, rng: random.Random) -> Iterator[Article]:
    """Articles whose scenes are taught."""
    for _ in range(count):
        yield world.article(rng)
