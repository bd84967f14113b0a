"""What the micro model is pre-trained on: difficulty grows, and every answer can be read or seen."""

from __future__ import annotations

import random

import pytest

from ealign_plugin.alignment.prompts import Templates, Wording
from ealign_plugin.micronews.lessons import STAGES, Lessons, draw_articles, pretraining_world


@pytest.fixture(scope="module")
def lessons() -> Lessons:
    world = pretraining_world(1)
    articles = [article.scenes for article in draw_articles(world, 40, random.Random(1))]
    return Lessons(articles, world, Wording())


FIRST, SCENE, ARTICLES = 0, 5, len(STAGES) - 1  # lists of two; one scene; whole articles


def drawn(lessons: Lessons, stage: int, kind: str, count: int = 60):
    rng = random.Random(f"{stage}/{kind}")
    batch = [lesson for _ in range(20) for lesson in lessons.batch(STAGES[stage], 64, rng)]
    return [lesson for lesson in batch if lesson.kind == kind][:count]


def test_every_stage_but_the_last_ends_by_a_lesson_of_its_own():
    assert all(stage.mastered[0] in stage.shares and stage.mastered[1] > 0 for stage in STAGES[:-1])
    assert sum(stage.at_most for stage in STAGES[:-1]) < 0.85 and not STAGES[-1].mastered[0]


def test_lists_names_and_articles_grow(lessons):
    for name in ("pairs", "names", "scenes", "fillers"):
        values = [getattr(stage, name) for stage in STAGES]
        assert values == sorted(values) and values[0] < values[-1]
    people = [{lesson.target.count(" and ") + 1 for lesson in drawn(lessons, n, "find")} for n in (0, 1, 3)]
    assert people == [{2}, {2, 3}, {3, 4, 5}]


@pytest.mark.parametrize("stage", range(SCENE, len(STAGES)))
def test_whoever_is_asked_for_stands_in_the_text(lessons, stage):
    for lesson in drawn(lessons, stage, "name"):
        for person in lesson.target.split(" and "):
            name = " ".join(person.split()[-2:])
            assert name in lesson.prompt.instruction or not person.startswith("the ")


def test_a_caption_is_asked_for_as_the_training_asks(lessons):
    before, _, after = Templates().caption.partition("{context}")
    for lesson in drawn(lessons, ARTICLES, "caption"):
        assert lesson.prompt.instruction.startswith(before) and lesson.prompt.instruction.endswith(after)
        assert lesson.target.endswith(".")


def test_nothing_of_the_alignment_tasks_is_taught(lessons):
    kinds = ("see", "find", "name", "caption")
    batches = [drawn(lessons, stage, kind) for stage in (FIRST, SCENE, ARTICLES) for kind in kinds]
    questions = {lesson.prompt.question for batch in batches for lesson in batch}
    wording = Wording()
    assert wording.sentence("").question not in questions and wording.entity("").question not in questions


def test_two_lessons_share_a_photo_and_lists_share_one(lessons):
    batch = lessons.batch(STAGES[SCENE], 96, random.Random(3))
    assert len({lesson.photo for lesson in batch}) <= 49
    assert len({lesson.photo for lesson in batch if lesson.kind == "find"}) == 1
