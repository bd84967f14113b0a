"""The closed world's articles: neither picture nor article alone tells who is shown, both together do."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ealign_plugin.entities import entity_key, load_ner
from ealign_plugin.micronews import draw
from ealign_plugin.micronews.closed import (
    EVENTS,
    MONTHS,
    ORGANISATIONS,
    PEOPLE,
    PLACES,
    Scene,
    make_article,
    make_samples,
)
from ealign_plugin.news import Entity

NAMES = {
    name: label
    for label, table in (("PERSON", PEOPLE), ("GPE", PLACES), ("ORG", ORGANISATIONS), ("EVENT", EVENTS))
    for owners in table
    for name in owners
}
DATE = re.compile(rf"\b\d{{1,2}} (?:{'|'.join(MONTHS)})\b")

seeds = st.integers(0, 10**9)
many = settings(max_examples=150, deadline=None, derandomize=True)


def names(scene: Scene) -> set[str]:
    """Whom and what a scene shows, by the names that its article gives them."""
    return {look.name for look in (*scene.people, scene.place, scene.org, scene.event)}


def told(text: str, wanted: set[str] | dict[str, str]) -> set[str]:
    return {name for name in wanted if name.casefold() in text.casefold()}


def sentences(paragraphs: list[str]) -> list[str]:
    """The generator's sentences: they end with a full stop, and hold no other."""
    return [sentence for text in paragraphs for sentence in re.findall(r"[^.]+\.", text)]


def test_every_look_that_a_name_has_can_be_drawn():
    drawable = (draw.N_FACES, draw.N_BACKDROPS, draw.N_LOGOS, draw.N_LAYOUTS)
    assert tuple(map(len, (PEOPLE, PLACES, ORGANISATIONS, EVENTS))) == drawable


def test_no_name_is_given_twice_or_is_part_of_another():
    assert len(NAMES) == 2 * sum(map(len, (PEOPLE, PLACES, ORGANISATIONS, EVENTS)))
    words = [word for name, label in NAMES.items() if label == "PERSON" for word in name.split()]
    assert max(Counter(words).values()) == 1  # else a first name would be half an answer
    assert [(a, b) for a in NAMES for b in NAMES if a != b and entity_key(a) in entity_key(b)] == []


@many
@given(seeds)
def test_an_article_has_12_to_40_sentences(seed):
    _, paragraphs = make_article(random.Random(seed))
    assert 12 <= len(sentences(paragraphs)) <= 40


@many
@given(seeds)
def test_no_look_occurs_twice_in_an_article_so_look_alikes_never_meet(seed):
    scenes, paragraphs = make_article(random.Random(seed))
    for looks in (
        [person.look for scene in scenes for person in scene.people],
        *([getattr(scene, part).look for scene in scenes] for part in ("place", "org", "event")),
    ):
        assert len(set(looks)) == len(looks)
    article = " ".join(paragraphs)
    for owners in (*PEOPLE, *PLACES, *ORGANISATIONS, *EVENTS):
        assert len(told(article, set(owners))) <= 1


@many
@given(seeds)
def test_the_article_tells_everything_that_a_scene_shows_and_its_date_beside_the_people(seed):
    scenes, paragraphs = make_article(random.Random(seed))
    assert len({scene.date for scene in scenes}) == len(scenes)
    for scene in scenes:
        assert told(" ".join(paragraphs), names(scene)) == names(scene)
        (dated,) = [sentence for sentence in sentences(paragraphs) if scene.date in DATE.findall(sentence)]
        assert all(person.name in dated for person in scene.people)


@many
@given(seeds)
def test_no_sentence_is_about_two_scenes(seed):
    """What is a positive sentence for one photo is a hard negative for the others."""
    scenes, paragraphs = make_article(random.Random(seed))
    for sentence in sentences(paragraphs):
        about = told(sentence, NAMES) | set(DATE.findall(sentence))
        assert sum(bool(about & {*names(scene), scene.date}) for scene in scenes) <= 1


@many
@given(seeds)
def test_a_caption_names_everything_in_its_scene_and_nothing_else(seed):
    for sample, scene in make_samples(random.Random(seed), "a", "train"):
        assert told(sample.caption, NAMES) == names(scene)
        assert DATE.findall(sample.caption) == [scene.date]


def test_the_photos_of_one_article_share_it_and_have_keys_of_their_own():
    samples = [sample for sample, _ in make_samples(random.Random(1), "train00007", "val")]
    assert [sample.key for sample in samples] == ["train00007_0", "train00007_1", "train00007_2"]
    assert {(sample.article_id, sample.split, sample.source) for sample in samples} == {
        ("train00007", "val", "micronews")
    }
    assert len({sample.paragraphs for sample in samples}) == 1


def test_what_matters_stands_often_beyond_the_first_100_words():
    """Else the head of the article would do, and nothing would need to be selected."""
    beyond = total = 0
    for seed in range(100):
        scenes, paragraphs = make_article(random.Random(seed))
        head = " ".join(" ".join(paragraphs).split()[:100])
        for scene in scenes:
            beyond += any(person.name not in head for person in scene.people)
            total += 1
    assert 0.4 < beyond / total < 0.9


def test_names_and_looks_come_about_equally_often():
    articles = [make_article(random.Random(seed))[0] for seed in range(1500)]
    counts = Counter(name for scenes in articles for scene in scenes for name in names(scene))
    for table in (PEOPLE, PLACES, ORGANISATIONS, EVENTS):
        found = [counts[name] for owners in table for name in owners]
        assert min(found) > 0.75 * max(found)


def test_one_seed_gives_one_article():
    assert make_article(random.Random(3)) == make_article(random.Random(3))
    assert make_article(random.Random(3)) != make_article(random.Random(4))


# ------------------------------------------------------------- what spaCy finds of what was meant


def intended(text: str) -> set[tuple[str, str]]:
    """(key, label) of every name and date that the generator put into the text."""
    found = {(entity_key(name), NAMES[name]) for name in told(text, NAMES)}
    return found | {(entity_key(date), "DATE") for date in DATE.findall(text)}


def found(entities: tuple[Entity, ...]) -> set[tuple[str, str]]:
    return {(entity_key(entity.text), entity.label) for entity in entities}


@pytest.fixture(scope="module")
def annotated():
    """60 articles with their 180 captions, as the real pipeline annotates them."""
    rng = random.Random("agreement")
    samples = [sample for number in range(60) for sample, _ in make_samples(rng, str(number), "test")]
    return list(load_ner().annotate(samples))


def test_spacy_finds_the_entities_that_the_generator_meant(annotated):
    texts = [(sample.caption, sample.caption_entities) for sample in annotated]
    texts += [(s.text, s.entities) for sample in annotated[::3] for s in sample.sentences]
    meant, right, spurious = Counter(), Counter(), Counter()
    for text, entities in texts:
        meant.update(label for _, label in intended(text))
        right.update(label for _, label in intended(text) & found(entities))
        # Filler holds numbers and months on purpose: only names are counted as spurious.
        spurious.update(label for _, label in found(entities) - intended(text) if label in NAMES.values())
    for label, count in sorted(meant.items()):
        print(f"{label:7} meant {count:4}, found {right[label] / count:.3f}, spurious {spurious[label]}")
    print(f"all     meant {meant.total():4}, found {right.total() / meant.total():.3f}")
    assert right.total() / meant.total() >= 0.95
    assert min(right[label] / count for label, count in meant.items()) >= 0.9
    assert spurious.total() <= 0.02 * meant.total()


def test_spacy_finds_the_sentences_that_the_generator_wrote(annotated):
    """A sentence cut in two would make a second, nameless sentence: a wrong negative."""
    same = [
        [s.text for s in sample.sentences] == [s.strip() for s in sentences(list(sample.paragraphs))]
        for sample in annotated[::3]
    ]
    assert sum(same) / len(same) >= 0.9
