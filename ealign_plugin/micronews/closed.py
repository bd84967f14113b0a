"""MicroNews: a small invented newsroom whose photos and articles can be made anywhere, from a seed.

What makes it worth learning from is that neither the picture nor the article is enough. Every look (a
face, a backdrop, a logo, an event's scenery) belongs to *two* names, so the picture leaves two answers;
an article tells of several scenes with names of every kind, and never of both owners of one look, so
reading decides, but only for who knows where to look::

    photo                         article (12–40 sentences)
    face 3 → Laura Romero         … Rain fell on 9 of the last 14 days. Kevin Park came to Oslo …
             or Grace Tanaka      … On 14 March, Laura Romero opened the World Cup. …

Three photos stand with one article, one for each of its scenes: what is a positive sentence for one is a
hard negative for the others. Which entities the texts hold is *not* recorded by this module: spaCy finds
them, as it does for real news.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ealign_plugin.news import NewsSample

# Two names a look: names that spaCy's small model tags reliably (tests/micronews says how well).
PEOPLE = (
    ("Karen Wright", "Susan Campbell"),
    ("James Okafor", "Victor Hughes"),
    ("Leila Rahimi", "Fatima Moreau"),
    ("Daniel Novak", "Henry Schmidt"),
    ("Aisha Bennett", "Monica Ortiz"),
    ("Ahmed Haddad", "Omar Farouk"),
    ("Grace Tanaka", "Alice Coleman"),
    ("Robert Larsen", "Martin Weber"),
    ("Priya Mehta", "Julia Santos"),
    ("Kevin Park", "Michael Fischer"),
    ("Hannah Carter", "Linda Griffin"),
    ("Thomas Brooks", "George Foster"),
    ("Maria Keller", "Clara Murphy"),
    ("Simon Wagner", "Andrew Dawson"),
    ("Laura Romero", "Rachel Jensen"),
    ("David Walsh", "Brian Adams"),
)
PLACES = (
    ("Havana", "Sydney"),
    ("Geneva", "Vienna"),
    ("Chicago", "Toronto"),
    ("Cairo", "Nairobi"),
    ("Oslo", "Dublin"),
    ("Lisbon", "Madrid"),
)
ORGANISATIONS = (
    ("UNESCO", "Siemens"),
    ("the World Bank", "Volvo"),
    ("NASA", "IBM"),
    ("Boeing", "Airbus"),
    ("Toyota", "Honda"),
    ("Microsoft", "Sony"),
)
EVENTS = (
    ("the Asian Games", "the World Series"),
    ("the Harvest Festival", "the Spring Festival"),
    ("the Summer Olympics", "the Winter Olympics"),
    ("the World Cup", "the Ryder Cup"),
    ("the Glastonbury Festival", "the Super Bowl"),
    ("the US Open", "the Australian Open"),
)
MONTHS = ("January", "February", "March", "April", "May", "June", "July")

CAPTIONS = (
    "{people} of {org} at {event} in {place} on {date}.",
    "{people} of {org} in {place} for {event} on {date}.",
    "{people}, with a team from {org}, at {event} in {place} on {date}.",
)
# The date stands beside the people, so that who reads the right sentence also has the right date.
DATED = (
    "{people} came to {event} on {date}.",
    "On {date}, {people} arrived in {place}.",
    "{people} met a delegation from {org} on {date}.",
    "Guests saw {people} at {event} on {date}.",
    "On {date}, {people} gave a short speech.",
)
TOLD = (
    "{people} spoke about the work of {org}.",
    "{people} walked through the old streets of {place}.",
    "{people} asked visitors to be patient.",
    "{people} thanked everybody who had helped.",
    "Nobody had expected {people} to stay for so long.",
    "A spokesperson for {org} praised the mood at {event}.",
    "{org} sent a large team to {place}.",
    "{org} paid for most of the tents.",
    "Volunteers from {org} handed out water.",
    "The people of {place} had waited for years.",
    "Hotels across {place} were full.",
    "{place} is hosting {event} for the first time.",
    "Tickets for {event} were sold out.",
    "Children drew pictures of {event} at school.",
)
FILLER = (
    "The weather stayed dry for most of the week, with only a little wind in the evenings.",
    "About {n} people stood in line before noon, some of them since the early hours of the morning.",
    "Prices for food and drink rose by {n} percent over the summer, according to a small survey.",
    "Officials counted {n} buses near the gate and asked drivers to use the other car park.",
    "It was not clear on the first day who would pay for the repairs to the old roof.",
    "A second report on costs and safety is expected in {month}, a little later than planned.",
    "Many visitors said they would come again, even if the long way home was tiring.",
    "The road to the north was closed for {n} hours after a truck had lost part of its load.",
    "Police described the evening as calm and said that nobody had been hurt in the crowd.",
    "More than {n} letters reached the newspaper, most of them friendly and a few of them angry.",
    "Some shops stayed open until midnight and sold out of bread, water and warm clothes.",
    "The plan was first discussed in {month}, when hardly anybody believed that it could work.",
    "Heavy rain had delayed the work by {n} days, and the last chairs came only at the weekend.",
    "Critics called the costs too high and wanted to see the contracts before the next vote.",
    "A small band played old songs on the steps while families ate lunch on the grass.",
    "Nothing of the kind had been tried before, and many of the helpers were new to the job.",
)


class Look(NamedTuple):
    """Something that can be drawn, by the name that this scene gives it."""

    look: int
    name: str


@dataclass(frozen=True, slots=True)
class Scene:
    """What one photo shows, and the date, which no photo shows."""

    people: tuple[Look, ...]
    place: Look
    org: Look
    event: Look
    date: str

    def fill(self, template: str) -> str:
        """The template as a sentence about this scene."""
        text = template.format(
            people=" and ".join(person.name for person in self.people),
            place=self.place.name,
            org=self.org.name,
            event=self.event.name,
            date=self.date,
        )
        return text[0].upper() + text[1:]


def make_article(rng: random.Random, scenes_per_article: int = 3) -> tuple[list[Scene], list[str]]:
    """Draw the scenes of one article and write its paragraphs (12–40 sentences in all).

    No look occurs twice in an article: the two owners of a look never meet in one.
    """
    scenes = _scenes(rng, scenes_per_article)
    blocks: list[list[str]] = []
    for scene in scenes:
        sentences = _sentences_about(rng, scene)
        stray = [sentences.pop()] if rng.random() < 0.5 else []
        blocks += [block for block in (sentences, stray) if block]
    told_sentences = sum(map(len, blocks))
    filler = rng.randint(max(2, 12 - told_sentences), max(2, 40 - told_sentences))
    while filler > 0:
        length = min(filler, rng.randint(1, 4))
        blocks.append([_filler(rng) for _ in range(length)])
        filler -= length
    rng.shuffle(blocks)
    return scenes, [" ".join(block) for block in blocks]


def make_samples(rng: random.Random, article_id: str, split: str) -> Iterator[tuple[NewsSample, Scene]]:
    """The samples of one new article, one for each of its scenes."""
    scenes, paragraphs = make_article(rng)
    for index, scene in enumerate(scenes):
        sample = NewsSample(
            key=f"{article_id}_{index}",
            split=split,
            caption=scene.fill(rng.choice(CAPTIONS)),
            paragraphs=tuple(paragraphs),
            article_id=article_id,
            source="micronews",
        )
        yield sample, scene


def _scenes(rng: random.Random, count: int) -> list[Scene]:
    faces = rng.sample(range(len(PEOPLE)), 2 * count)
    places = _names(rng, PLACES, count)
    orgs = _names(rng, ORGANISATIONS, count)
    events = _names(rng, EVENTS, count)
    days = rng.sample(range(28 * len(MONTHS)), count)
    scenes = []
    for index in range(count):
        shown = faces[2 * index : 2 * index + rng.choice((1, 2))]
        people = tuple(Look(face, rng.choice(PEOPLE[face])) for face in shown)
        date = f"{days[index] % 28 + 1} {MONTHS[days[index] // 28]}"
        scenes.append(Scene(people, places[index], orgs[index], events[index], date))
    return scenes


def _names(rng: random.Random, table: Sequence[tuple[str, str]], count: int) -> list[Look]:
    return [Look(look, rng.choice(table[look])) for look in rng.sample(range(len(table)), count)]


def _sentences_about(rng: random.Random, scene: Scene) -> list[str]:
    """A few sentences that together name everything in the scene, the dated one among them."""
    chosen = [rng.choice(DATED)]
    missing = {"{place}", "{org}", "{event}"}
    missing -= {slot for slot in missing if slot in chosen[0]}
    while missing:
        template = rng.choice([t for t in TOLD if t not in chosen and any(slot in t for slot in missing)])
        chosen.append(template)
        missing -= {slot for slot in missing if slot in template}
    if rng.random() < 0.5:
        chosen.append(rng.choice([t for t in TOLD if t not in chosen]))
    rng.shuffle(chosen)
    return [scene.fill(template) for template in chosen]


def _filler(rng: random.Random) -> str:
    return rng.choice(FILLER).format(n=rng.randint(2, 90), month=rng.choice(MONTHS))
