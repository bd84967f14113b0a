"""What one photo of the open world shows: its people, a place, an organisation and an event."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ealign_plugin.micronews.strangers import Appearance


class Person(NamedTuple):
    """Somebody in a photo.

    Args:
        name: First and last name.
        look: What is drawn (see `draw.draw_scene`).
        description: What the article tells of the look; empty for who is known.
    """

    name: str
    look: int | tuple[Appearance, int]
    description: str = ""


class Place(NamedTuple):
    """Where it is.

    Args:
        name: As it stands in a caption.
        look: What is drawn: the number of a landmark, or a setting of `towns.SETTINGS`.
        described: As it stands in an article that tells what it looks like; the name where it is known.
    """

    name: str
    look: int | str
    described: str


class Organisation(NamedTuple):
    """Whose people they are; ``look`` is the index of the emblem's shape, and its colour."""

    name: str
    look: tuple[int, str]
    described: str


class Event(NamedTuple):
    """What is going on; ``look`` is the number of a furniture, or colour and pattern of flags."""

    name: str
    look: int | tuple[str, str]
    described: str


Thing = Place | Organisation | Event


@dataclass(frozen=True, slots=True)
class Scene:
    """What one photo shows, and the date, which no photo shows."""

    people: tuple[Person, ...]
    place: Place
    org: Organisation
    event: Event
    date: str

    def fill(
        self,
        template: str,
        described: Sequence[str] = (),
        rng: random.Random | None = None,
        after: float = 0.0,
    ) -> str:
        """The template as a sentence about this scene.

        Args:
            template: With ``{people}``, ``{place}``, ``{org}``, ``{event}`` and ``{date}``.
            described: Which of these are told with what is visible of them.
            rng: Draws the order and wording of descriptions; needed where there are any.
            after: Share of the people who are described behind their name.
        """
        people = [person.name for person in self.people]
        if "people" in described and rng:
            people = [introduced(person, rng, after) for person in self.people]
            rng.shuffle(people)
        slots = {"people": " and ".join(people), "date": self.date}
        for slot in ("place", "org", "event"):
            thing: Thing = getattr(self, slot)
            slots[slot] = thing.described if slot in described else thing.name
        text = template.format(**slots).replace(",.", ".").replace(",,", ",")
        return text[0].upper() + text[1:]


def introduced(person: Person, rng: random.Random, after: float) -> str:
    """The person with what is visible of them: before the name, or less often behind it."""
    if not person.description:
        return person.name
    if rng.random() >= after:
        return f"the {person.description} {person.name}"
    return f"{person.name}, the {person.description},"
