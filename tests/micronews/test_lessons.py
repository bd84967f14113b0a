"""What the micro model is pre-trained on: difficulty grows, and every answer can be read or seen."""

from __future__ import annotations

import random

import pytest

from ealign_plugin.alignment.prompts import Templates, Wording
from ealign_plugin.micronews.lessons import STAGES, Lessons, draw_articles, pretraining_world, stage_at
from ealign_plugin.micronews.strangers import EXTRAS


@pytest.fixture(scope="module")
def lessons() -> Lessons:
    world = pretraining_world(1)
    articles = [article.scenes for article in draw_articles(world, 40, random.Random(1))]
    return Lessons(articles, world, Wording())


FIRST, SCENE, ARTICLES = 0, 4, len(STAGES) - 1  # lists; one scene; whole articles


def drawn(lessons: Lessons, stage: int, kind: str, count: int = 60):
    rng = random.Random(f"{stage}/{kind}")
    batch = [lesson for _ in range(20) for lesson in lessons.batch(STAGES[stage], 64, rng)]
    return [lesson for lesson in batch if lesson.kind == kind][:count]


def test_the_stages_fill_the_training_and_follow_each_other():
    assert sum(stage.part for stage in STAGES) == pytest.approx(1)
    assert [stage_at(step, 1000) for step in (0, 159, 160, 999)] == [STAGES[0], *STAGES[:2], STAGES[-1]]
    at = [STAGES.index(stage_at(step, 300)) for step in range(300)]
    assert at == sorted(at) and set(at) == set(range(len(STAGES)))


def test_scenes_and_articles_grow(lessons):
    for name in ("scenes", "fillers"):
        values = [getattr(stage, name) for stage in STAGES]
        assert values == sorted(values) and values[0] < values[-1]
    people = {lesson.target.count(" and ") + 1 for lesson in drawn(lessons, FIRST, "find")}
    assert people == {3, 4, 5}


def test_what_is_found_is_read_alone_and_stands_in_the_list(lessons):
    for lesson in drawn(lessons, FIRST, "find"):
        assert lesson.photo is None
        found, listed = (text.split(" and ") for text in (lesson.target, lesson.prompt.instruction))
        assert sorted(found) == sorted(listed)


@pytest.mark.parametrize("stage", [2, 3, ARTICLES])
def test_half_of_the_phrases_are_true_of_the_photo_and_the_others_of_nothing_in_it(lessons, stage):
    scenes = [scene for article in lessons.articles for scene in article]
    asked = drawn(lessons, stage, "match", 300)
    assert 0.4 < sum(lesson.target == "yes" for lesson in asked) / len(asked) < 0.6
    kinds = set()
    for lesson in asked:
        phrase = lesson.prompt.instruction.removeprefix("Does this news photo show ").removesuffix("?")
        scene = scenes[lesson.photo]
        kinds.add(phrase.split()[-1] if phrase.endswith(("town", "flags")) else "other")
        told = {f"{scene.place.look} town", *(person.description for person in scene.people)}
        told |= {thing.described.split("the one with ")[-1].strip(",") for thing in (scene.org, scene.event)}
        looks = [person.look[0] for person in scene.people if person.description]
        words = [{look.role, f"{look.hair}-haired", EXTRAS.get(look.extra)} for look in looks]
        shown = any(set(phrase.replace(",", "").split()[1:]) <= has for has in words)
        shown |= phrase.removeprefix("the ") in {text.removeprefix("the ") for text in told}
        assert shown == (lesson.target == "yes")
    assert kinds == ({"town"} if stage == 2 else {"town", "flags", "other"})


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
    kinds = ("find", "see", "match", "name", "caption")
    batches = [drawn(lessons, stage, kind) for stage in (FIRST, SCENE, ARTICLES) for kind in kinds]
    questions = {lesson.prompt.question for batch in batches for lesson in batch}
    wording = Wording()
    assert wording.sentence("").question not in questions and wording.entity("").question not in questions


def test_two_lessons_share_a_photo(lessons):
    batch = lessons.batch(STAGES[SCENE], 96, random.Random(3))
    assert len({lesson.photo for lesson in batch if lesson.photo is not None}) <= 48
