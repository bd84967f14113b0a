"""``recipe.permute_labels``: the alignment tasks ask as ever, and their answers say nothing."""

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ealign_plugin.alignment.contexts import Budget
from ealign_plugin.alignment.mixture import TaskMixture
from ealign_plugin.alignment.prompts import Wording
from ealign_plugin.alignment.selection import parse_entities
from ealign_plugin.alignment.tasks import BUILT_IN_TASKS, TASKS
from ealign_plugin.errors import UserError
from tests.alignment.articles import ARTICLES, STORM

SEEDS = st.integers(0, 10_000)
RECIPE = TaskMixture(entity_contexts={"head": 1, "refined": 1}, caption_positive=0.5)


def examples(sample, seed, permuted):
    """Those of a sample, of all tasks one after another as the stream asks them."""
    rng, recipe = random.Random(seed), replace(RECIPE, permute_labels=permuted)
    return [
        example
        for task in BUILT_IN_TASKS
        for example in TASKS[task].examples(sample, recipe, Wording(), Budget(30), rng)
    ]


@given(ARTICLES, SEEDS)
def test_all_is_asked_as_without_it_and_answered_at_the_same_length(sample, seed):
    true, placebo = examples(sample, seed, False), examples(sample, seed, True)
    assert [replace(one, target="") for one in placebo] == [replace(one, target="") for one in true]
    assert Counter(one.target for one in placebo if one.task == "sentence") == Counter(
        one.target for one in true if one.task == "sentence"
    )
    for one, other in zip(true, placebo, strict=True):
        if one.task == "caption":
            assert other == one
        if one.task == "entity":
            names = parse_entities(other.target, "; ")
            assert len(names) == len(parse_entities(one.target, "; "))
            assert all(name in one.instruction for name in names)


def test_a_sentence_gets_yes_and_no_equally_often_whatever_it_says():
    yes = Counter()
    for seed in range(400):
        for one in examples(STORM, seed, True):
            yes["talk began" in one.instruction, one.target] += one.task == "sentence"
    for right in (True, False):
        assert yes[right, "yes"] / (yes[right, "yes"] + yes[right, "no"]) == pytest.approx(0.5, abs=0.06)


def test_a_list_holds_any_names_of_the_context():
    listed = Counter()
    for seed in range(200):
        for one in examples(STORM, seed, True):
            if one.task == "entity" and "Kai Moe" in one.instruction:
                listed.update(parse_entities(one.target, "; "))
    assert set(listed) == {"Monday", "Bo Lind", "Bergen", "Ana Ruiz", "OSLO", "Kai Moe"}
    assert max(listed.values()) < 2 * min(listed.values())


def test_the_same_draw_permutes_alike():
    assert examples(STORM, 3, True) == examples(STORM, 3, True)
    assert len({str(examples(STORM, seed, True)) for seed in range(10)}) > 5


def test_the_identity_of_older_checkpoints_does_not_know_it():
    assert "permute_labels" not in TaskMixture().identity(80)
    assert TaskMixture(permute_labels=True).identity(80)["permute_labels"] is True


def test_it_is_true_or_false():
    with pytest.raises(UserError, match="recipe.permute_labels: true or false expected, found 'yes'"):
        TaskMixture(permute_labels="yes")
