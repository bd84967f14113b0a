"""The three tasks: what is asked, what is answered, and how the examples are balanced."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ealign_plugin.alignment.contexts import CONTEXTS, Budget, build_context
from ealign_plugin.alignment.mixture import TaskMixture
from ealign_plugin.alignment.prompts import Templates, Wording
from ealign_plugin.alignment.selection import parse_entities, sentence_labels, shared_entities
from ealign_plugin.alignment.tasks import BUILT_IN_TASKS, TASKS, AlignmentTask, Example, register_task
from ealign_plugin.entities import entity_keys
from ealign_plugin.errors import UserError
from tests.alignment.articles import ARTICLES, STORM, article

TEMPLATES = Templates(
    caption="Read {context} Write:", sentence="Is it? {sentence} Say:", entity="Read {context} Names?"
)
WORDING = Wording(TEMPLATES)
EXACT = {"miss": 0, "extra": 0}  # selections without mistakes
SEEDS = st.integers(0, 10_000)


def visit(sample, task, seed=0, words=100, **recipe):
    return TASKS[task].examples(sample, TaskMixture(**recipe), WORDING, Budget(words), random.Random(seed))


def sentence_asked(example):
    before, after = WORDING.sentence_parts()
    return example.instruction.removeprefix(before).removesuffix(after)


# Captions and names


def test_a_caption_example():
    assert visit(STORM, "caption", words=20, **EXACT) == [
        Example(
            task="caption",
            instruction="Read Ana Ruiz’s talk began. OSLO slept. Write:",
            question="Read Write:",
            target="Ana Ruiz in Oslo on Monday.",
        )
    ]


def test_an_entity_example_asks_for_the_names_that_its_context_shows():
    (example,) = visit(STORM, "entity", words=20, **EXACT)
    assert example.instruction == "Read Ana Ruiz’s talk began. OSLO slept. Names?"
    assert (example.question, example.target) == ("Read Names?", "Ana Ruiz; OSLO")
    (example,) = visit(STORM, "entity", words=5, **EXACT)
    assert example.target == "Ana Ruiz"
    (example,) = visit(STORM, "entity", words=20, entity_contexts={"full": 1})
    assert example.target == "Monday; Ana Ruiz; OSLO"


def test_a_training_context_may_list_wrong_names():
    (example,) = visit(STORM, "caption", contexts={"supplemented": 1}, extra_names=1, **EXACT)
    names = example.instruction.partition("Names: ")[2]
    assert names == "Monday; Bo Lind; Bergen; Ana Ruiz; OSLO; Kai Moe. Write:"


def test_a_name_that_was_cut_off_is_not_asked_for():
    targets = [visit(STORM, "entity", words=words, **EXACT)[0].target for words in (1, 2)]
    assert targets == ["none", "Ana Ruiz"]


def test_an_entity_example_without_names():
    (example,) = visit(STORM, "entity", entity_contexts={"none": 1})
    assert (example.instruction, example.target) == ("Read Names?", "none")
    (example,) = visit(article("Rain.", "[Oslo/GPE]."), "entity")
    assert example.target == "none"


@given(ARTICLES, SEEDS, st.sampled_from(list(CONTEXTS)), st.integers(1, 40))
def test_names_to_list_are_in_the_caption_and_in_the_text(sample, seed, strategy, words):
    (example,) = visit(sample, "entity", seed, entity_contexts={strategy: 1}, words=words)
    names = parse_entities(example.target, TEMPLATES.separator)
    assert set(names) <= set(shared_entities(sample))
    assert all(name in example.instruction for name in names)


@given(ARTICLES)
def test_the_head_is_asked_for_all_names_of_its_sentences(sample):
    (example,) = visit(sample, "entity", entity_contexts={"head": 1}, words=30)
    seen = build_context(sample, "head", Budget(30)).sentences
    assert parse_entities(example.target, "; ") == shared_entities(sample, seen)


def test_contexts_are_drawn_by_their_shares():
    rng = random.Random(3)
    recipe = TaskMixture(contexts={"none": 3, "full": 1, "head": 0})
    task = TASKS["caption"]
    drawn = Counter(
        task.examples(STORM, recipe, WORDING, Budget(100), rng)[0].instruction for _ in range(400)
    )
    assert len(drawn) == 2
    assert drawn["Read Write:"] / 400 == pytest.approx(3 / 4, abs=0.06)


# Sentences


def test_sentence_examples_come_in_pairs_of_yes_and_no():
    made = visit(STORM, "sentence", positives=3, caption_positive=0)
    assert [example.target for example in made] == ["yes", "no"] * 3
    assert {example.question for example in made} == {"Is it? Say:"}
    asked = {(sentence_asked(example), example.target) for example in made}
    assert asked <= {
        ("It rained on Monday.", "no"),
        ("Bo Lind left Bergen.", "no"),
        ("Ana Ruiz’s talk began.", "yes"),
        ("Nobody came, not even Bo Lind.", "no"),
        ("OSLO slept.", "yes"),
        ("Kai Moe won.", "no"),
    }


@given(ARTICLES, SEEDS, st.integers(1, 4), st.floats(0, 1), st.floats(0, 1))
def test_every_answer_is_right_and_both_are_equally_frequent(
    sample, seed, positives, by_caption, any_negative
):
    made = visit(
        sample, "sentence", seed, positives=positives, caption_positive=by_caption, any_negative=any_negative
    )
    labels = sentence_labels(sample)
    if len(set(labels)) < 2:  # positives or negatives are missing
        assert made == []
        return
    right = {(s.text, "yes" if label else "no") for s, label in zip(sample.sentences, labels, strict=True)}
    assert {(sentence_asked(e), e.target) for e in made} <= right | {(sample.caption, "yes")}
    assert Counter(example.target for example in made) == {"yes": positives, "no": positives}


def test_every_type_of_entity_is_asked_for_equally_often():
    crowd = [f"[Ana Ruiz/PERSON] spoke, part {i}." for i in range(9)] + ["[Oslo/GPE] slept."]
    others = [f"[Bo Lind/PERSON] spoke, part {i}." for i in range(9)] + ["[Bergen/GPE] slept.", "Rain."]
    sample = article("[Ana Ruiz/PERSON] in [Oslo/GPE].", *crowd, *others)
    made = visit(sample, "sentence", positives=600, caption_positive=0, any_negative=0)
    asked = Counter((sentence_asked(example).partition(" ")[0], example.target) for example in made)
    # Ana, Bo: nine sentences each. Oslo, Bergen: one each. Rain: no hard negative.
    assert asked == {
        ("Ana", "yes"): pytest.approx(300, abs=50),
        ("Bo", "no"): asked["Ana", "yes"],
        ("Oslo", "yes"): pytest.approx(300, abs=50),
        ("Bergen", "no"): asked["Oslo", "yes"],
    }


def test_the_type_is_that_of_a_shared_entity_not_of_its_neighbours():
    sample = article(
        "[Ana/PERSON]", "[Ana/PERSON] left [Oslo/GPE].", "[Bo/PERSON] spoke.", "[Bergen/GPE] slept."
    )
    made = visit(sample, "sentence", positives=20, any_negative=0)
    assert {sentence_asked(example) for example in made if example.target == "no"} == {"Bo spoke."}


def test_a_share_of_the_negatives_is_any_sentence():
    sample = article("[Ana/PERSON]", "[Ana/PERSON] spoke.", "[Bo/PERSON] spoke.", "Rain.", "Snow.", "Wind.")
    asked = Counter(map(sentence_asked, visit(sample, "sentence", positives=800, any_negative=0.4)))
    assert asked["Bo spoke."] / 800 == pytest.approx(0.6 + 0.4 / 4, abs=0.05)


def test_without_a_hard_negative_any_other_sentence_is_one():
    sample = article("[Ana/PERSON]", "[Ana/PERSON] spoke.", "[Oslo/GPE] slept.")
    assert [e.target for e in visit(sample, "sentence", any_negative=0, positives=1)] == ["yes", "no"]


@pytest.mark.parametrize(("share", "expected"), [(0, 0), (0.25, 100), (1, 400)])
def test_a_share_of_the_positives_is_the_caption(share, expected):
    made = visit(STORM, "sentence", positives=400, caption_positive=share)
    captions = sum(sentence_asked(example) == STORM.caption for example in made)
    assert captions == pytest.approx(expected, abs=35 if 0 < share < 1 else 0)


@pytest.mark.parametrize(
    "sentences",
    [(), ("[Oslo/GPE].",), ("Rain.",), ("[Oslo/GPE].", "[Oslo/GPE] again."), ("On [Monday/DATE].", "Rain.")],
)
def test_an_article_without_positives_or_negatives_gives_no_pairs(sentences):
    assert visit(article("[Oslo/GPE] on [Monday/DATE]", *sentences), "sentence") == []


@given(ARTICLES, SEEDS, st.sampled_from(BUILT_IN_TASKS))
def test_equal_seeds_give_equal_examples(sample, seed, task):
    assert visit(sample, task, seed) == visit(sample, task, seed)


@given(ARTICLES)
def test_a_sample_before_annotation_still_gives_a_caption(sample):
    bare = article(sample.caption)
    assert [example.target for example in visit(bare, "caption")] == [sample.caption]
    assert entity_keys(bare.caption_entities) == set() and visit(bare, "sentence") == []


# Recipe


@pytest.mark.parametrize("name", ["tasks", "contexts", "entity_contexts"])
@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({}, "a share above 0 was expected, found {}"),
        ({"KEY": 0}, "a share above 0 was expected"),
        ({"KEY": -1}, "names with shares of 0 or more were expected, found {'KEY': -1}"),
        ({"KEY": float("nan")}, "names with shares of 0 or more were expected"),
        ({"KEY": float("inf")}, "names with shares of 0 or more were expected"),
        ({"KEY": "1"}, "names with shares of 0 or more were expected"),
        ({"KEY": None}, "names with shares of 0 or more were expected"),
        ("KEY", "names with shares of 0 or more were expected, found 'KEY'"),
        (None, "names with shares of 0 or more were expected, found None"),
        ({"KEY": 1, "heads": 1}, "unknown WHAT 'heads'; "),
    ],
)
def test_shares_that_cannot_be_drawn_from(name, shares, message):
    known = "sentence" if name == "tasks" else "head"
    if isinstance(shares, dict):
        shares = {known if key == "KEY" else key: value for key, value in shares.items()}
    with pytest.raises(UserError) as caught:
        TaskMixture(**{name: shares})
    message = message.replace("WHAT", "alignment task" if name == "tasks" else "context strategy")
    assert str(caught.value).startswith(f"recipe.{name}: {message}".replace("{'KEY'", f"{{'{known}'"))


def as_found(value) -> str:
    return "null" if value is None else repr(value)


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "10", None])
def test_the_number_of_positives(value):
    message = rf"^recipe.positives: found {as_found(value)}, expected (a whole number of )?at least 1$"
    with pytest.raises(UserError, match=message):
        TaskMixture(positives=value)
    assert TaskMixture(positives=1).positives == 1


@pytest.mark.parametrize(
    "name", ["caption_positive", "any_negative", "miss", "extra", "extra_names", "own_share"]
)
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), "0.5", None, False])
def test_probabilities(name, value):
    with pytest.raises(
        UserError, match=rf"^recipe.{name}: found {as_found(value)}, expected (a number )?from 0 to 1$"
    ):
        TaskMixture(**{name: value})
    assert [getattr(TaskMixture(**{name: edge}), name) for edge in (0, 1)] == [0, 1]


def test_a_phase_changes_some_values_and_leaves_the_recipe_as_it_was():
    recipe = TaskMixture(positives=3)
    first = recipe.changed({"tasks": {"caption": 1}, "contexts": {"none": 1}})
    assert (first.tasks, first.contexts, first.positives) == ({"caption": 1}, {"none": 1}, 3)
    assert recipe == TaskMixture(positives=3)


def test_an_empty_mapping_in_a_config_means_as_it_was():
    assert TaskMixture().changed({"tasks": {}, "entity_contexts": {}}) == TaskMixture()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"task": {"caption": 1}},
            "recipe: unknown key 'task'; did you mean 'tasks'? Expected one of any_negative, ",
        ),
        (
            {"tasks": {"captions": 1}},
            "recipe.tasks: unknown alignment task 'captions'; did you mean 'caption'? Expected one of",
        ),
        ({"positives": 0}, "recipe.positives: found 0, expected at least 1"),
        (
            {"words": 80},
            "recipe.words: there is no such key any more; set run.context_words (or run.context_tokens)",
        ),
    ],
)
def test_a_change_is_checked_like_the_recipe(changes, message):
    with pytest.raises(UserError) as caught:
        TaskMixture().changed(changes)
    assert str(caught.value).startswith(message)


def test_the_identity_is_that_of_checkpoints_before_the_budget_was_one_key():
    made = TaskMixture().identity(80)
    assert list(made) == [
        "tasks",
        "contexts",
        "entity_contexts",
        "words",
        "positives",
        "caption_positive",
        "any_negative",
        "miss",
        "extra",
    ]
    assert made["words"] == 80 and made["tasks"] == {"caption": 1.0, "sentence": 2.0, "entity": 0.3}


# Tasks at test, and those of other packages


def test_names_are_asked_parsed_and_scored():
    task = TASKS["entity"]
    assert task.ask(STORM, WORDING, Budget(4)) == WORDING.entity("It rained on Monday.")
    answers = [task.parse(answer, WORDING) for answer in ("Ana Ruiz; Bo Lind; Monday", "none")]
    assert answers == [("Ana Ruiz", "Bo Lind", "Monday"), ()]
    figures = task.score([STORM, STORM], answers)
    assert figures == {"precision": pytest.approx(2 / 3), "recall": pytest.approx(2 / 6)}
    assert task.score([], []) == {"precision": None, "recall": None}


def test_another_package_adds_a_task():
    @register_task
    class Weather(AlignmentTask):
        """Does it rain?"""

        name = "test_weather"

        def examples(self, sample, options, wording, budget, rng):
            return [self.example(wording.fill("Rain? {context}", "{context}", sample.headline), "no")]

    mixture = TaskMixture(tasks={"caption": 1, "test_weather": 2})
    assert mixture.tasks["test_weather"] == 2
    task = TASKS["test_weather"]
    assert visit(STORM, "test_weather") == [Example("test_weather", "Rain?", "Rain?", "no")]
    assert task.ask(STORM, WORDING, Budget(9)) is None
    assert (task.parse(" yes ", WORDING), task.score([STORM], ["yes"])) == ("yes", {})
    assert "test_weather" not in TaskMixture().tasks  # not mixed in before a config names it
    with pytest.raises(UserError, match="unknown alignment task 'alignment'; .* caption, .*test_weather"):
        TaskMixture(tasks={"alignment": 1})
