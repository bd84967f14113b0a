"""What would name strangers without reading and looking: each stays below half of what `refined` reaches."""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from ealign_plugin.micronews.world import make_samples, world_of

DOCS = Path(__file__).parents[2] / "docs" / "results.md"
TRAINED, TESTED = 1000, 150  # articles
FAR = 6  # paragraphs between a photo and its story that are told apart


def refined() -> float:
    """People right of `refined` on strangers, as docs/results.md has it."""
    table = re.search(r"^\| context .*strangers: people right.*(?:\n\|.*)+", DOCS.read_text(), re.M)
    header, _, *rows = ([cell.strip() for cell in line.split("|")] for line in table[0].splitlines())
    (row,) = (row for row in rows if row[1] == "refined")
    return float(row[header.index("strangers: people right")].split()[0]) / 100


def articles(split: str, count: int) -> list[list[tuple]]:
    """Samples and scenes of each article."""
    world, rng = world_of(split), random.Random(f"shortcuts/{split}")
    return [list(make_samples(world, rng, f"{split}{number}", split)) for number in range(count)]


@pytest.fixture(scope="module")
def train():
    return articles("train", TRAINED)


@pytest.fixture(scope="module")
def test():
    return articles("test", TESTED)


def strangers_alone(scene) -> bool:
    return all(person.description for person in scene.people)


def clues(sample, scene, position: bool) -> list[str]:
    """What can be counted of a scene's story without its photo; who belongs to it is told, to be generous."""
    names = [person.name for person in scene.people] + [t.name for t in (scene.place, scene.org, scene.event)]
    about = [n for n, paragraph in enumerate(sample.paragraphs) if any(name in paragraph for name in names)]
    text = " ".join(sample.paragraphs[number] for number in about)
    found = [f"word {word}" for word in set(re.findall(r"\w+", text))]
    found += [f"{len(about)} paragraphs", f"{len(scene.people)} people"]
    found += ["in the headline"] if any(name in sample.headline for name in names) else []
    if position:
        first = next(n for n in about if scene.people[0].name in sample.paragraphs[n])
        for what, number in (("people", first), ("first", about[0])):
            away = max(-FAR, min(FAR, number - sample.image_position))
            found.append(f"{what} at {away}")
        found.append("photo on top" if sample.image_position == 0 else "photo below")
        found += [f"{clue} and on top" for clue in found[-3:-1] if sample.image_position == 0]
    return found


def bag_of_words(train, test, position: bool) -> float:
    """Of the test's photos of strangers: those whose story a linear model chooses among the four."""
    counted = Counter(
        clue
        for shown in train
        for sample, _ in shown
        for _, scene in shown
        for clue in clues(sample, scene, position)
    )
    kept = sorted(clue for clue, count in counted.items() if count >= 5)
    number = {clue: index for index, clue in enumerate(kept)}

    def candidates(shown) -> torch.Tensor:
        """Float [photos, candidates, clues]."""
        table = torch.zeros(len(shown), len(shown), len(number))
        for row, (sample, _) in enumerate(shown):
            for column, (_, scene) in enumerate(shown):
                known = [number[clue] for clue in clues(sample, scene, position) if clue in number]
                table[row, column, known] = 1
        return table

    learnt = torch.cat([candidates(shown) for shown in train])
    right = torch.arange(4).repeat(len(train))
    weights = torch.zeros(len(number), requires_grad=True)
    optimizer = torch.optim.AdamW([weights], lr=0.02, weight_decay=0.01)
    for _ in range(300):
        optimizer.zero_grad()
        F.cross_entropy(learnt @ weights, right).backward()
        optimizer.step()
    with torch.no_grad():
        chosen = [(candidates(shown) @ weights).argmax(1).tolist() for shown in test]
    hits = [
        choice == place
        for choices, shown in zip(chosen, test, strict=True)
        for place, (choice, (_, scene)) in enumerate(zip(choices, shown, strict=True))
        if strangers_alone(scene)
    ]
    return sum(hits) / len(hits)


def test_a_bag_of_words_without_the_photo_does_not_find_the_story(train, test):
    """Whoever finds it has the names: this is all that such a model could get right."""
    without, with_position = (bag_of_words(train, test, position) for position in (False, True))
    assert 0.15 < without < refined() / 2 and 0.28 < with_position < refined() / 2


def test_a_lookup_of_faces_without_the_article_names_no_stranger(train, test):
    owners: dict[object, Counter[str]] = {}
    for _, scene in (pair for shown in train for pair in shown):
        for person in scene.people:
            look = person.look if isinstance(person.look, int) else person.look[0]
            owners.setdefault(look, Counter())[person.name] += 1

    def right(scene) -> bool:
        looks = [person.look if isinstance(person.look, int) else person.look[0] for person in scene.people]
        named = {owners[look].most_common(1)[0][0] for look in looks if look in owners}
        return named == {person.name for person in scene.people}

    scenes = [scene for shown in test for _, scene in shown]
    strangers = [right(scene) for scene in scenes if strangers_alone(scene)]
    known = [right(scene) for scene in scenes if not any(person.description for person in scene.people)]
    assert sum(strangers) / len(strangers) < refined() / 2
    assert not any(strangers) and all(known) and known  # the known are recognised: that is what they are for
