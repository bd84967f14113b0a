"""The mix of tasks: what each batch holds, in whatever phase and budget, also of tasks of other packages."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from ealign_plugin.alignment.mixture import TaskMixture
from ealign_plugin.alignment.prompts import Wording
from ealign_plugin.alignment.tasks import BUILT_IN_TASKS as TASKS
from ealign_plugin.alignment.tasks import AlignmentTask, register_task
from ealign_plugin.data.shards.read import RawSample
from ealign_plugin.data.streams.mixing import TaskMixer, task_quota
from ealign_plugin.data.streams.position import ConsumerState
from ealign_plugin.errors import UserError
from tests.data.streams.factories import take, text_of, training


def batches_of(items: list, size: int) -> list[list]:
    return [items[start : start + size] for start in range(0, len(items), size)]


# -------------------------------------------------------------------------------------------- mix of tasks


def test_every_batch_holds_the_mix(index):
    for batch in batches_of(take(40 * 8, training(index.shards["train"])), 8):
        assert Counter(item["task"] for item in batch) == {"caption": 2, "sentence": 4, "entity": 2}
        answers = Counter(item["target"] for item in batch if item["task"] == "sentence")
        assert answers == {"yes": 2, "no": 2}


def test_the_answers_are_right(index):
    for item in take(200, training(index.shards["train"])):
        shown = ("Ruiz", "Oslo") if item["key"].endswith("_0") else ("Weber", "Cairo")
        assert item["image"].shape == (3, 8, 8)
        if item["task"] == "caption":
            assert item["target"] == f"{shown[0]} in {shown[1]}."
        elif item["task"] == "sentence":
            assert (item["target"] == "yes") == any(name in item["instruction"] for name in shown)
        else:
            assert set(item["target"].split("; ")) <= set(shown)


def test_phases_change_the_mix_at_their_batch(index):
    phases = [
        {"until": 2, "tasks": {"caption": 1}, "contexts": {"none": 1}},
        {"until": 3, "tasks": {"sentence": 1}},
    ]
    items = take(6 * 8, training(index.shards["train"], phases=phases))
    tasks = [Counter(item["task"] for item in batch) for batch in batches_of(items, 8)]
    assert tasks[:3] == [{"caption": 8}, {"caption": 8}, {"sentence": 8}]
    assert all(set(count) == set(TASKS) for count in tasks[3:])
    assert not any("Ruiz" in item["instruction"] for item in items[:16])  # without context


def test_phases_begin_at_the_same_batch_whatever_worker_makes_it(index):
    phases = [{"until": 3, "tasks": {"caption": 1}}]
    loader = DataLoader(training(index.shards["train"], phases=phases), 8, num_workers=2, collate_fn=text_of)
    tasks = [{task for _, task, *_ in batch} for batch in take(5, loader)]
    assert tasks == 3 * [{"caption"}] + 2 * [set(TASKS)]


def test_the_text_processor_acts_on_the_data_and_leaves_the_templates(index):
    wording = Wording(text_processor=str.upper)
    plain = take(16, training(index.shards["train"]))
    for item, before in zip(take(16, training(index.shards["train"], wording=wording)), plain, strict=True):
        assert item["question"] == before["question"] != item["question"].upper()
        assert item["target"] == (
            before["target"] if before["target"] in ("yes", "no", "none") else before["target"].upper()
        )
        start, end = around_the_data(wording, item["task"])
        text = before["instruction"].removeprefix(start).removesuffix(end)
        assert item["instruction"] == start + text.upper() + end


def around_the_data(wording: Wording, task: str) -> tuple[str, str]:
    """What stands before and after the text in a task's template."""
    mark = "{sentence}" if task == "sentence" else "{context}"
    start, _, end = getattr(wording.templates, task).partition(mark)
    return start, end


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "at least 1 example was expected, found 0"),
        ({"batch_size": 3}, "3 examples cannot hold the 4 examples of the task sentence that come together"),
        (
            {"batch_size": 6, "recipe": TaskMixture(tasks={"sentence": 1})},
            "no multiple of the 4 examples of the task sentence that come together",
        ),
        ({"phases": [{"tasks": {"caption": 1}}]}, "'until' must be a batch after 0, found None"),
        ({"phases": [{"until": "soon"}]}, "'until' must be a batch after 0, found 'soon'"),
        ({"phases": [{"until": 5}, {"until": 5}]}, "'until' must be a batch after 5, found 5"),
        ({"phases": [{"until": 5, "taskz": {}}]}, "unknown key 'taskz'"),
    ],
)
def test_an_impossible_mix_is_refused_before_anything_is_read(changes, message):
    with pytest.raises(UserError, match=message):
        training((), **changes)


def test_samples_without_any_example_of_a_task_end_in_an_error(news):
    """Every sentence of this article is about the photo: there is no negative."""
    only_positive = dataclasses.replace(news(), sentences=news().sentences[:1])
    endless = itertools.repeat((RawSample("k", b"", b""), only_positive, torch.zeros(3, 1, 1)))
    mixer = TaskMixer(TaskMixture(tasks={"sentence": 1}), Wording(), batch_size=4)
    with pytest.raises(UserError, match="no example of the task sentence; check the data"):
        next(mixer(endless))


# ------------------------------------------------------------------------- tasks and budgets of other kinds


def weather() -> type[AlignmentTask]:
    @register_task
    class Weather(AlignmentTask):
        """A task of another package."""

        name = "stream_weather"

        def examples(self, sample, options, wording, budget, rng):
            return [self.example(wording.fill("Rain? {context}", "{context}", sample.headline), "no")]

    return Weather


def test_a_task_of_another_package_is_mixed_in_and_goes_on_where_it_stood(index):
    weather()
    recipe = TaskMixture(tasks={"caption": 1, "stream_weather": 0.7})
    items = take(40, training(index.shards["train"], recipe=recipe))
    assert Counter(item["task"] for item in items) == {"caption": 24, "stream_weather": 16}
    state = ConsumerState.from_text(items[15]["stream_state"])
    assert state.carry_over["stream_weather"] == pytest.approx(16 * 0.7 / 1.7 - 6)
    again = training(index.shards["train"], recipe=recipe)
    again.resume(2, {0: state})
    assert text_of(take(24, again)) == text_of(items[16:])


def test_contexts_may_be_counted_in_tokens(index):
    stream = training(index.shards["train"], context_words=20, context_tokens=30)
    stream.count_tokens_with(len)  # a token is a letter
    start, end = around_the_data(Wording(), "caption")
    contexts = [
        item["instruction"].removeprefix(start).removesuffix(end)
        for item in take(16, stream)
        if item["task"] == "caption"
    ]
    assert contexts and all(0 < len(context) <= 30 for context in contexts)
    with pytest.raises(ValueError, match="needs count_tokens"):
        take(1, training(index.shards["train"], context_tokens=30))


def test_the_usual_context_is_that_of_the_run(index):
    """Names, which no recipe leaves out, join the sentences that the usual context reads of its part."""
    recipe = TaskMixture(tasks={"caption": 1}, contexts={"supplemented": 1}, miss=0, extra=0)
    texts = {
        name: take(8, training(index.shards["train"], recipe=recipe, usual_context=name, context_words=16))
        for name in ("none", "head")
    }
    assert not any("It rained" in item["instruction"] for item in texts["none"])
    assert all("It rained" in item["instruction"] for item in texts["head"])
    assert all("Names: Ruiz; Oslo." in i["instruction"] for i in texts["none"] if i["key"].endswith("_0"))


@pytest.mark.parametrize("name", ["context_words", "context_tokens"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "10"])
def test_a_budget_is_a_whole_number(name, value):
    with pytest.raises(UserError, match=f"^run.{name}: found {value!r}, expected .*at least 1"):
        training((), **{name: value})


# ---------------------------------------------------------------------------------------- quotas of a batch


shares = st.fixed_dictionaries(dict.fromkeys(TASKS, st.floats(0, 10))).filter(
    lambda tasks: sum(tasks.values()) > 0.1
)


@st.composite
def mixes(draw) -> tuple[TaskMixture, int]:
    """A recipe and a batch size that the mixer takes."""
    recipe = TaskMixture(tasks=draw(shares), positives=draw(st.integers(1, 4)))
    visit = 2 * recipe.positives
    if {task for task, share in recipe.tasks.items() if share} == {"sentence"}:
        return recipe, visit * draw(st.integers(1, 8))
    return recipe, draw(st.integers(visit, 64))


def quotas(recipe: TaskMixture, batch_size: int, count: int, owed: dict[str, float]) -> list[dict[str, int]]:
    return [task_quota(recipe, batch_size, owed) for _ in range(count)]


def share_of(recipe: TaskMixture, task: str) -> float:
    return recipe.tasks.get(task, 0) / sum(recipe.tasks.values())


@settings(max_examples=300, deadline=None, derandomize=True)
@given(mixes())
def test_quotas_fill_the_batch_with_whole_visits(mix):
    recipe, size = mix
    for quota in quotas(recipe, size, 30, dict.fromkeys(TASKS, 0.0)):
        assert sum(quota.values()) == size and min(quota.values()) >= 0
        assert quota["sentence"] % (2 * recipe.positives) == 0
        assert all(not quota[task] for task in TASKS if not recipe.tasks[task])


@settings(max_examples=300, deadline=None, derandomize=True)
@given(mixes())
def test_in_the_long_run_the_shares_are_right(mix):
    recipe, size = mix
    visit = 2 * recipe.positives
    made = quotas(recipe, size, 400, dict.fromkeys(TASKS, 0.0))
    most = size // visit * visit / size  # of a batch that visits do not fill, sentences cannot have more
    sentences = min(share_of(recipe, "sentence"), most)
    assert sum(quota["sentence"] for quota in made) / (400 * size) == pytest.approx(sentences, abs=0.01)
    if share_of(recipe, "sentence") <= most:
        for task in TASKS:
            total = sum(quota[task] for quota in made) / (400 * size)
            assert total == pytest.approx(share_of(recipe, task), abs=0.01)


def test_what_one_phase_could_not_pay_does_not_flood_the_next():
    owed = dict.fromkeys(TASKS, 0.0)
    quotas(
        TaskMixture(tasks={"sentence": 99, "caption": 1}), 7, 1000, owed
    )  # at most 4 of 7 can be sentences
    made = quotas(TaskMixture(tasks={"sentence": 1, "caption": 9}), 7, 100, owed)
    assert sum(quota["sentence"] for quota in made) / 700 == pytest.approx(0.1, abs=0.02)
