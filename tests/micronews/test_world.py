"""The open world's articles: strangers' names must be read, and can be, by who looks at the photo."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ealign_plugin.alignment.prompts import Wording
from ealign_plugin.entities import entity_keys, load_ner
from ealign_plugin.micronews import closed
from ealign_plugin.micronews.lessons import STAGES, Lessons, pretraining_world
from ealign_plugin.micronews.names import MEN, WOMEN, pools, tenth
from ealign_plugin.micronews.scenes import Person
from ealign_plugin.micronews.strangers import EXTRAS, HAIR
from ealign_plugin.micronews.world import KNOWN_FACES, TRAIN, make_samples, world_of
from ealign_plugin.micronews.writing import Article
from ealign_plugin.news import NewsSample

seeds = st.integers(0, 10**9)
many = settings(max_examples=100, deadline=None, derandomize=True)
SPLITS = ("train", "val", "test", "test_known")


def article(seed: int, split: str = "test") -> Article:
    return world_of(split).article(random.Random(seed))


def strangers(written: Article) -> list[Person]:
    return [person for scene in written.scenes for person in scene.people if person.description]


def text(written: Article) -> str:
    return " ".join(written.paragraphs)


def text_of(sample: NewsSample) -> str:
    return " ".join((sample.headline, *sample.paragraphs))


def fits(description: str, person: Person) -> bool:
    """Is everything that these words tell visible of this person?"""
    look = person.look[0]
    features = {"role": look.role, "hair": f"{look.hair}-haired", "extra": EXTRAS.get(look.extra)}
    return set(re.split(", | ", description)) <= set(features.values())


@many
@given(seeds)
def test_a_description_fits_one_stranger_of_the_article_alone(seed):
    people = strangers(article(seed))
    for person in people:
        assert [other.name for other in people if fits(person.description, other)] == [person.name]


@many
@given(seeds)
def test_the_article_tells_what_is_visible_of_each_stranger_and_of_nobody_who_is_known(seed):
    written = article(seed)
    for person in (person for scene in written.scenes for person in scene.people):
        told = [
            form in text(written)
            for form in (f"he {person.description} {person.name}", f"{person.name}, the {person.description}")
        ]
        assert person.name in text(written)
        assert any(told) if person.description else not any(told)


@many
@given(seeds)
def test_new_places_firms_and_events_are_described_and_their_pictures_differ(seed):
    written = article(seed)
    for kind in ("place", "org", "event"):
        things = [getattr(scene, kind) for scene in written.scenes]
        assert len({thing.look for thing in things}) == len({thing.name for thing in things}) == 4
        for thing in things:
            assert thing.described.removeprefix("the ").rstrip(",") in text(written)


@many
@given(seeds)
def test_no_name_stands_for_two_in_an_article(seed):
    written = article(seed)
    last = [person.name.split()[-1] for scene in written.scenes for person in scene.people]
    others = [scene.org.name.split()[0] for scene in written.scenes]
    assert len({*last, *others}) == len(last) + len(others)


@many
@given(seeds)
def test_articles_are_short_enough_to_be_read_whole(seed):
    written = article(seed)
    assert 8 <= len(re.findall(r"[^.]+\.", text(written))) <= 40
    assert len(text(written).split()) <= 480
    assert all(0 <= position <= len(written.paragraphs) for position in written.positions)


def test_some_articles_hold_look_alikes():
    alike = 0
    for seed in range(200):
        roles = [person.look[0].role for person in strangers(article(seed))]
        alike += len(set(roles)) < len(roles)
    assert 20 <= alike <= 100


def test_a_photo_stands_near_its_story_more_often_than_by_chance_and_seldom_beside_it():
    near, beside, chance, total = 0, 0, 0.0, 0
    for seed in range(300):
        written = article(seed)
        for scene, position in zip(written.scenes, written.positions, strict=True):
            story = next(
                number
                for number, paragraph in enumerate(written.paragraphs)
                if all(person.name in paragraph for person in scene.people)
            )
            places = len(written.paragraphs) + 1
            assert 0 <= position < places
            total += 1
            near += -1 <= position - story <= 2
            beside += position == story
            chance += min(4, places - max(0, story - 1)) / places
    assert 0.1 < near / total - chance / total < 0.25 and beside / total < 0.3


def test_nobody_of_one_split_is_in_another():
    names = {
        split: {person.name for seed in range(300) for person in strangers(article(seed, split))}
        for split in ("train", "val", "test")
    }
    assert not names["train"] & names["test"] and not names["train"] & names["val"]
    assert not names["val"] & names["test"]


def test_half_of_the_strangers_of_a_test_have_last_names_that_training_never_holds():
    held = {person.name.split()[-1] for seed in range(300) for person in strangers(article(seed, "train"))}
    asked = [person.name for seed in range(300) for person in strangers(article(seed))]
    new = [name for name in asked if tenth(name.split()[-1]) not in TRAIN]
    assert 0.4 < len(new) / len(asked) < 0.6
    assert not {name.split()[-1] for name in new} & held


@pytest.mark.parametrize("split", ["val", "test", "test_known"])
def test_everybody_can_be_renamed_to_a_stranger_of_the_same_kind(split):
    held = {name.split()[-1] for name in world_of("train").names.last}
    for seed in range(30):
        samples = list(make_samples(world_of(split), random.Random(seed), "a1", split))
        people = [person for _, scene in samples for person in scene.people]
        known = {person.name for person in people if not person.description}
        for sample, _ in samples:
            new = dict(sample.extra["new_names"])
            assert new == samples[0][0].extra["new_names"] and set(new) == {person.name for person in people}
            assert all(new.pop(name) == name for name in known)  # nothing else tells who they are
            words = {word for other in new.values() for word in other.split()} - set(" ".join(known).split())
            assert not any(word in text_of(sample) for word in words)
            assert len(set(new.values())) == len(new) and not {o.split()[-1] for o in new.values()} & held
            assert all((name.split()[0] in MEN) == (other.split()[0] in MEN) for name, other in new.items())


def test_the_names_of_the_training_are_not_replaced():
    (sample, _), *_ = make_samples(world_of("train"), random.Random(1), "a1", "train")
    assert not sample.extra


def test_known_people_are_all_in_test_known():
    people = [p for seed in range(50) for scene in article(seed, "test_known").scenes for p in scene.people]
    assert {person.look for person in people} == set(KNOWN_FACES)
    assert {person.name for person in people} == {closed.PEOPLE[face][0] for face in KNOWN_FACES}


def test_the_pretraining_meets_no_name_and_no_face_of_the_splits():
    world = pretraining_world(1)
    own = {name for names in (world.names.last, world.names.towns, world.names.firms) for name in names}
    for split in SPLITS:
        other = world_of(split)
        for names in filter(None, (other.names, other.new)):
            assert not own & {*names.last, *names.towns, *names.firms, *names.festivals}
        assert not set(world.faces) & set(other.faces)
    rng = random.Random(0)
    lessons = Lessons([world.article(rng).scenes for _ in range(60)], world, Wording())
    texts = " ".join(
        f"{lesson.prompt.instruction} {lesson.target}"
        for stage in STAGES
        for lesson in lessons.batch(stage, 300, rng)
    )
    words = set(re.findall(r"\w+", texts))
    known = {closed.PEOPLE[face][0].split()[-1] for face in KNOWN_FACES}
    used = {name for split in SPLITS for names in (world_of(split).names, world_of(split).new) if names
            for name in names.last}  # fmt: skip
    assert not words & (used | known)
    assert not any(name in texts for table in (closed.PLACES, closed.ORGANISATIONS, closed.EVENTS)
                   for pair in table for name in pair)  # fmt: skip


@pytest.fixture(scope="module")
def annotated():
    rng, world = random.Random(5), world_of("test")
    drawn = [sample for number in range(60) for sample, _ in make_samples(world, rng, str(number), "test")]
    return list(load_ner().annotate(iter(drawn)))


def test_spacy_finds_what_captions_name_in_the_article_too(annotated):
    lost = total = 0
    for sample in annotated:
        told = set().union(*(entity_keys(sentence.entities) for sentence in sample.sentences))
        wanted = entity_keys(sample.caption_entities)
        lost, total = lost + len(wanted - told), total + len(wanted)
    assert lost / total < 0.02


def test_spacy_tags_last_names_of_the_pools_in_other_sentences_too():
    rng = random.Random(2)
    names = [f"{rng.choice(WOMEN + MEN)} {last}" for last in rng.sample(pools().last, 200)]
    found = load_ner().entities(f"Nobody had expected {name} to stay for so long." for name in names)
    tagged = [
        (name, "PERSON") in {(e.text, e.label) for e in tags} for name, tags in zip(names, found, strict=True)
    ]
    assert sum(tagged) >= 190


def test_the_articles_names_alone_do_not_tell_who_is_shown(annotated):
    """The cheapest trick: the person who is named most often, or first, or in the headline."""
    right = {"most": 0, "first": 0}
    asked = 0
    for sample in annotated:
        shown = {entity.text for entity in sample.caption_entities if entity.label == "PERSON"}
        named = [e.text for s in sample.sentences for e in s.entities if e.label == "PERSON"]
        if not shown or not named:
            continue
        asked += 1
        right["first"] += shown <= {named[0]}
        right["most"] += shown <= {max(named, key=named.count)}
    assert asked > 150
    assert max(right.values()) / asked < 0.3


def test_colours_of_hair_have_one_word_each():
    assert len(set(HAIR.values())) == len(HAIR)
