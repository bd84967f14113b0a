"""``--tries``: what is tried, by which figure it is chosen, and what runs with it."""

import pytest

from ealign_plugin.errors import UserError
from tests.ladder.factories import edit, lines_of

TRIES = """
ladder:
  tries: [{run.init_lr: 0.1}, {run.init_lr: 0.2, run.beta2: 0.9}, {run.init_lr: 0.3}]
"""


@pytest.fixture
def tuned(folder, start, runs, tmp_path):
    """``tuned(tries=2, ...)`` -> the rungs that were run; the rate of 0.2 is the best, but for the fourth."""
    with open(folder / "base.yaml", "a") as base:
        base.write(TRIES)
    edit(folder / "base.yaml", "contexts:", "valid_splits: [val]\n  test_splits: [test]\n  contexts:")
    edit(folder / "1_first.yaml", "label: The first", "label: The first, tries: []")

    def quality(name, values):
        return -abs(float(values.run.get("init_lr", 1)) - (0.1 if name == "fourth" else 0.2))

    runs.quality = quality

    def run(tries=2, tune_seed=9, **options):
        return start(tries=tries, tune_seed=tune_seed, **options)

    return run


def test_every_trained_rung_is_tried_as_often_and_runs_with_its_best(tuned, runs, tmp_path):
    tries = ["first", "second", "second", "fourth", "fourth"]
    assert tuned() == [*tries, "first", "second", "third", "fourth"]
    rates = [[word for word in command if word.startswith("run.init_lr")] for command in runs.commands]
    low, high = ["run.init_lr=0.1"], ["run.init_lr=0.2"]
    assert rates == [[], low, high, low, high, [], high, [], low]
    assert "run.beta2=0.9" in runs.commands[6]


def test_tries_see_another_seeds_world_and_its_validation_split_alone(tuned, runs):
    tuned()
    for number, command in enumerate(runs.commands):
        words = {"run.seed=9", "run.test_splits=[val]", "datasets.ealign_micronews.world.seed=9"}
        assert words & set(command) == (words if number < 5 else set())


def test_what_starts_from_a_rung_is_tried_from_that_rungs_best_try(tuned, folder, runs, tmp_path):
    edit(folder / "11_fourth.yaml", "label: The fourth", "label: The fourth, start: second")
    tuned()
    for command in runs.commands[3:5]:
        (start,) = (word for word in command if word.startswith("model.finetuned"))
        assert f"{tmp_path}/out/tune9/second/try2/" in start


def test_the_tries_are_written_down(tuned, tmp_path):
    tuned(only=["fourth"])
    one, other = lines_of(tmp_path / "out" / "tune9" / "tries.jsonl")
    assert (one["rung"], one["try"], one["options"], one["seed"]) == ("fourth", 1, ["run.init_lr=0.1"], 9)
    assert (one["figure"], one["value"], one["chosen"], other["chosen"]) == ("entity_f1", 0.0, True, False)
    assert (one["revision"], len(one["config_sha256"])) == ("4f2a", 64)
    assert one["config_sha256"] != other["config_sha256"]


def test_nothing_is_tried_twice(tuned, runs):
    runs.fail = {"fourth"}
    with pytest.raises(UserError, match="rung fourth"):
        tuned()
    assert runs.take() == ["first", "second", "second", "fourth"]
    runs.fail = set()
    assert tuned() == ["fourth", "fourth", "first", "second", "third", "fourth"]
    assert tuned(tries=3) == ["second", "fourth"]  # the third try of each, which changes no choice


def test_what_was_tried_of_rungs_that_are_not_asked_for_counts_too(tuned, tmp_path):
    tuned()
    assert tuned(only=["first"]) == []
    assert len(lines_of(tmp_path / "out" / "results.jsonl")) == 4
    assert len(lines_of(tmp_path / "out" / "tune9" / "tries.jsonl")) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tries": 4}, "2_second.yaml: ladder.tries: found 3, expected at least --tries 4"),
        ({"tries": 0}, "--tries: found 0, expected at least 1"),
        ({"tune_seed": None}, "--tries and --tune-seed: one was found without the other"),
        ({"tune_seed": 12, "options": ["datasets.ealign_micronews.world.seed=12"]}, "--tune-seed: found 12"),
        ({"tune_seed": 3, "seeds": [3]}, "--tune-seed: found 3, which is a seed of the rungs"),
        ({"options": ["run.valid_splits=[]"]}, "run.valid_splits: found none"),
    ],
)
def test_a_mistake_is_told_before_anything_is_run(tuned, runs, options, message):
    with pytest.raises(UserError, match=message):
        tuned(**options)
    assert runs.commands == []


def test_a_mistake_in_the_last_try_is_told_before_the_first_is_run(tuned, folder, runs):
    edit(folder / "base.yaml", "{run.init_lr: 0.3}", "{run.inti_lr: 0.3}")
    with pytest.raises(UserError, match="run.inti_lr: unknown key"):
        tuned(tries=3)
    assert runs.commands == []


def test_tries_that_have_not_the_figure(tuned, runs):
    runs.quality = None
    with pytest.raises(UserError, match="no try has the figure entity_f1; set run.threshold_figure"):
        tuned()
