"""Tasks of other packages: asked of every photo of a test, and scored."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ealign_plugin.alignment.contexts import build_context
from ealign_plugin.alignment.tasks import TASKS, AlignmentTask, register_task
from ealign_plugin.errors import UserError
from tests.inference.factories import Oracle, Split, Validation, evaluate, evaluator, sample


@pytest.fixture
def weather():
    """A task of another package: it asks about photos whose caption names a day."""

    @register_task
    class Weather(AlignmentTask):
        name = "weather"

        def examples(self, sample, options, wording, budget, rng):
            return [self.example(wording.fill("Rain? {context} Answer:", "{context}", "x"), "yes")]

        def ask(self, sample, wording, budget):
            context = build_context(sample, "head", budget)
            return (
                wording.fill("Rain? {context} Answer:", "{context}", context.text) if sample.caption else None
            )

        def parse(self, answer, wording):
            return answer.startswith("Maria")

        def score(self, samples, answers):
            assert all(sample.caption for sample in samples)
            return {"said_yes": sum(answers) / len(answers), "undefined": None}

    yield Weather
    TASKS.unregister("weather")


def test_a_task_of_another_package_is_asked_of_every_test_photo(weather, without_java, tmp_path):
    class Model(Oracle):
        def generate(self, samples, **options):
            self.asked += [one for one in samples["instruction"] if one.startswith("Rain?")]
            return super().generate(samples, **options)

    split, model = Split(sample("a_0"), replace(sample("b_0"), caption="")), Model()
    split.tasks = ("caption", "weather")
    one, records, log = evaluate(tmp_path, model, split, contexts=["head"], context_words=8)
    assert [text for text in model.asked if text.startswith("Rain?")] == ["Rain? It rained. Answer:"]
    assert records[0]["answers"] == {"weather": "Maria Keller in Oslo on 3 May."}
    assert "answers" not in records[1]  # which the task does not ask about
    assert (log["tasks/weather/said_yes"], log["tasks/weather/undefined"]) == (1.0, None)
    assert one.report["tasks/weather/said_yes"] == 1.0
    assert "Task weather: said_yes 1.000, undefined undefined" in (tmp_path / "report.txt").read_text()
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert [line for line in lines if "task" in line] == [
        {"key": "a_0", "task": "weather", "answer": "Maria Keller in Oslo on 3 May.", "parsed": True}
    ]
    validation = Validation(sample())
    validation.tasks = split.tasks
    assert "tasks/weather/said_yes" not in evaluate(tmp_path, Oracle(), validation)[2]


def test_a_task_that_nobody_registered_is_refused(tmp_path):
    split = Split(sample())
    split.tasks = ("wether",)
    with pytest.raises(UserError, match="recipe.tasks: unknown alignment task 'wether'"):
        evaluator().start(split, tmp_path)
