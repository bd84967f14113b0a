"""Tasks that other packages registered and the training mixed in, asked of every photo of a test.

The three tasks of this package are asked by the two passes. Any other one words its own prompt, reads the
answers and scores them; its figures stand in metrics.json as ``tasks/<name>/<figure>``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ealign_plugin.alignment.prompts import Wording
from ealign_plugin.alignment.tasks import BUILT_IN_TASKS, TASKS, AlignmentTask
from ealign_plugin.inference.journal import Record
from ealign_plugin.inference.two_pass import TwoPasses
from ealign_plugin.news import NewsSample

PREFIX = "tasks/"


def other_tasks(names: Iterable[str]) -> list[AlignmentTask]:
    """The tasks among the names that the two passes do not ask.

    Raises:
        UserError: a task that nobody registered.
    """
    return [TASKS.get(name, "recipe.tasks") for name in names if name not in BUILT_IN_TASKS]


def ask_tasks(
    passes: TwoPasses,
    tasks: Sequence[AlignmentTask],
    features: Tensor,
    samples: Sequence[NewsSample],
    records: Sequence[Record],
) -> None:
    """Add the model's answers to the records, under ``answers``.

    Args:
        passes: Model, wording and budget.
        tasks: What to ask.
        features: Of the photos [B, P, V].
        samples: Theirs.
        records: Theirs; photos that a task does not ask about get no answer.
    """
    worded = [passes.wording.sample(sample) for sample in samples]
    for task in tasks:
        prompts = [task.ask(sample, passes.wording, passes.budget()) for sample in worded]
        asked = [index for index, prompt in enumerate(prompts) if prompt is not None]
        if not asked:
            continue
        answers = passes.generate(features[asked], [prompt for prompt in prompts if prompt is not None])
        for index, answer in zip(asked, answers, strict=True):
            records[index].setdefault("answers", {})[task.name] = answer


@dataclass(frozen=True, slots=True)
class TaskResults:
    """What came out of the tasks.

    Args:
        figures: By task, its figures.
        lines: Of predictions.jsonl: ``key``, ``task``, ``answer``, and what it was taken to mean.
    """

    figures: Mapping[str, Mapping[str, float | None]]
    lines: Sequence[Mapping[str, Any]]

    def flat(self) -> dict[str, float | None]:
        """``tasks/<name>/<figure>``, as metrics.json has them."""
        return {
            f"{PREFIX}{task}/{figure}": value
            for task, figures in self.figures.items()
            for figure, value in figures.items()
        }


def score_tasks(
    tasks: Sequence[AlignmentTask],
    records: Sequence[Record],
    wording: Wording,
    sample_of: Callable[[int], NewsSample],
) -> TaskResults:
    """Read the answers in the records, and score them.

    Args:
        tasks: Those that were asked.
        records: Of photos that could be read.
        wording: That of the prompts.
        sample_of: Index in the split → sample.
    """
    figures: dict[str, Mapping[str, float | None]] = {}
    lines: list[Mapping[str, Any]] = []
    for task in tasks:
        asked = [record for record in records if task.name in record.get("answers", {})]
        if not asked:
            continue
        samples = [wording.sample(sample_of(record["index"])) for record in asked]
        answers = [record["answers"][task.name] for record in asked]
        parsed = [task.parse(answer, wording) for answer in answers]
        figures[task.name] = task.score(samples, parsed)
        lines += [
            {"key": record["key"], "task": task.name, "answer": answer, "parsed": meaning}
            for record, answer, meaning in zip(asked, answers, parsed, strict=True)
        ]
    return TaskResults(figures, lines)
