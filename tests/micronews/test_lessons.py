"""What the micro model is pre-trained on: difficulty grows, and every answer can be read or seen."""

from __future__ import annotations

import random

import pytest

from ealign_plugin.alignment.prompts import Templates, Wording
from ealign_plugin.micronews.lessons import STAGES, Lessons, draw_articles, facts, pretraining_world


@pytest.fixture(scope="module")
def lessons() -> Lessons:
    world = pretraining_world(1)
    articles = [article.scenes for article in draw_articles(world, 40, random.Random(1))]
    return Lessons(articles, world, Wording())


def drawn(lessons: Lessons, done: float, kind: str, count: int = 60):
    rng = random.Random(f"{done}/{kind}")
    batch = [lesson for _ in range(20) for lesson in lessons.batch(lessons.stage(done), 64, rng)]
    return [lesson for lesson in batch if lesson.kind == kind][:count]


def test_stages_follow_each_other_to_the_end():
    ends = [stage.until for stage in STAGES]
    assert ends == sorted(set(ends)) and ends[-1] == 1.0


def test_lists_and_names_grow(lessons):
    first, last = lessons.stage(0.0), lessons.stage(0.249)
    assert first.pairs[0] == 2 and last.pairs[0] > 5.9
    assert first.names[0] == 0.08 and last.names[0] > 0.99
    names = [len({lesson.target for lesson in drawn(lessons, done, "find")}) for done in (0.0, 0.24)]
    assert names[0] <= names[1]
    people = [max(lesson.target.count(" and ") for lesson in drawn(lessons, d, "find")) for d in (0, 0.24)]
    assert people == [1, 5]


@pytest.mark.parametrize("done", [0.3, 0.5, 0.9])
def test_whoever_is_asked_for_stands_in_the_text(lessons, done):
    for lesson in drawn(lessons, done, "name"):
        for person in lesson.target.split(" and "):
            name = " ".join(person.split()[-2:])
            assert name in lesson.prompt.instruction or not person.startswith("the ")


def test_a_caption_is_asked_for_as_the_training_asks(lessons):
    before, _, after = Templates().caption.partition("{context}")
    for lesson in drawn(lessons, 0.9, "caption"):
        assert lesson.prompt.instruction.startswith(before) and lesson.prompt.instruction.endswith(after)
        assert lesson.target.endswith(".")


def test_half_of_the_phrases_are_about_the_photo(lessons):
    asked = drawn(lessons, 0.5, "match", 300)
    scenes = [scene for article in lessons.articles for scene in article]
    for lesson in asked:
        phrases = lesson.prompt.instruction.removeprefix("Does this describe the photo? ")
        told = phrases.removesuffix(" Answer:").split(" and ")
        true = [phrase in facts(scenes[lesson.photo]) for phrase in told]
        assert all(true) if lesson.target == "yes" else not any(true)
    assert 0.4 < sum(lesson.target == "yes" for lesson in asked) / len(asked) < 0.6


def test_nothing_of_the_alignment_tasks_is_taught(lessons):
    kinds = ("see", "match", "find", "name", "caption")
    batches = [drawn(lessons, done, kind) for done in (0, 0.3, 0.9) for kind in kinds]
    questions = {lesson.prompt.question for batch in batches for lesson in batch}
    wording = Wording()
    assert wording.sentence("").question not in questions and wording.entity("").question not in questions


def test_two_lessons_share_a_photo_and_lists_share_one(lessons):
    batch = lessons.batch(lessons.stage(0.3), 96, random.Random(3))
    assert len({lesson.photo for lesson in batch}) <= 49
    assert len({lesson.photo for lesson in batch if lesson.kind == "find"}) == 1
