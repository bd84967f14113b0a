"""Decoded samples → examples, so that every batch holds the mixture's shares."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ealign_plugin.alignment.mixture import TASKS, TaskMixture
from ealign_plugin.alignment.prompts import Wording
from ealign_plugin.alignment.tasks import Example, examples
from ealign_plugin.data.shards.read import RawSample
from ealign_plugin.data.streams.order import this_worker
from ealign_plugin.data.streams.position import ConsumerState
from ealign_plugin.errors import UserError
from ealign_plugin.news import NewsSample


@dataclass
class TaskMixer:
    """Decoded samples → examples, so that every batch holds the recipe's mix.

    A visit to a sample gives what the batch still lacks of each task, so its photo is used by several
    examples of a batch, which share ``key`` and ``image``.

    Args:
        recipe: Which examples to make.
        wording: How they are worded.
        batch_size: Examples in a batch.
        seed: Seed of all choices.
        phases: Changes of the recipe over the training: ``{"until": batch, **changes}``, in order; the
            recipe itself holds after the last.

    Raises:
        UserError: the batch cannot hold the mix, or the phases are not in order.
    """

    recipe: TaskMixture
    wording: Wording
    batch_size: int
    seed: int = 0
    phases: Sequence[Mapping[str, Any]] = ()

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UserError(f"run.batch_size_train: at least 1 example was expected, found {self.batch_size}")
        self._recipes: list[tuple[int, TaskMixture]] = []
        for phase in self.phases:
            change = dict(phase)
            until, before = change.pop("until", None), self._recipes[-1][0] if self._recipes else 0
            if not isinstance(until, int) or until <= before:
                raise UserError(
                    f"phases: 'until' must be a batch after {before}, found {until!r} in {dict(phase)}"
                )
            self._recipes.append((until, self.recipe.changed(change)))
        for _, recipe in [*self._recipes, (0, self.recipe)]:
            _check_batch(recipe, self.batch_size)

    def recipe_at(self, batch: int) -> TaskMixture:
        """The recipe that holds for the batch with this number."""
        return next((recipe for until, recipe in self._recipes if batch < until), self.recipe)

    def __call__(self, stream: Iterable[tuple[RawSample, NewsSample, Tensor]]) -> Iterator[dict[str, Any]]:
        return self.mix(stream, *this_worker())

    def mix(
        self,
        stream: Iterable[tuple[RawSample, NewsSample, Tensor]],
        worker: int,
        workers: int,
        start: ConsumerState | None = None,
    ) -> Iterator[dict[str, Any]]:
        """The examples of one worker, from a state on; the last of each batch tells the state after it.

        Raises:
            UserError: ten thousand samples in a row gave no example of a task.
        """
        start = start or ConsumerState()
        number = worker if start.batch is None else start.batch
        owed = dict(zip(TASKS, start.owed, strict=True))
        samples = iter(stream)
        while True:
            recipe = self.recipe_at(number)
            quota = task_quota(recipe, self.batch_size, owed)
            idle = 0
            while any(quota.values()):
                raw, sample, image = next(samples)
                sample = self.wording.sample(sample)
                rng = random.Random(f"{self.seed}/{number}/{raw.place.epoch}/{raw.key}")
                made = 0
                for task in TASKS:
                    if quota[task] > 0:
                        for example in examples(sample, task, recipe, self.wording, rng)[: quota[task]]:
                            quota[task] -= 1
                            made += 1
                            item = self._item(example, image, raw.key)
                            if not any(quota.values()):
                                state = ConsumerState(raw.place, number + workers, tuple(owed.values()))
                                item["stream_state"] = state.to_text()
                            yield item
                idle = 0 if made else idle + 1
                if idle > 10_000:
                    lacking = ", ".join(task for task, left in quota.items() if left)
                    raise UserError(
                        f"10,000 samples in a row gave no example of the task {lacking}; check the data"
                    )
            number += workers

    def _item(self, example: Example, image: Tensor, key: str) -> dict[str, Any]:
        return {
            "image": image,
            "instruction": example.instruction,
            "question": example.question,
            "target": example.target,
            "task": example.task,
            "key": key,
            "stream_state": "",
        }


def _check_batch(recipe: TaskMixture, batch_size: int) -> None:
    """Sentences come in whole visits: as many positives as negatives of one article."""
    tasks = {task for task, share in recipe.tasks.items() if share > 0}
    visit = 2 * recipe.positives
    if "sentence" in tasks and not 2 <= visit <= batch_size:
        raise UserError(
            f"a batch of {batch_size} examples cannot hold the {visit} sentences of one visit "
            f"(recipe.positives {recipe.positives}); change run.batch_size_train or recipe.positives"
        )
    if tasks == {"sentence"} and batch_size % visit:
        raise UserError(
            f"a batch of {batch_size} sentences is no multiple of the {visit} of one visit "
            f"(recipe.positives {recipe.positives}); change run.batch_size_train or give another task a share"
        )


def task_quota(recipe: TaskMixture, batch_size: int, owed: dict[str, float]) -> dict[str, int]:
    """How many examples of each task the next batch holds; what does not divide is owed to later batches.

    Sentences come in whole visits, the largest of the other tasks fills what is left.
    """
    total = sum(recipe.tasks.values())
    share = {task: recipe.tasks.get(task, 0.0) / total for task in TASKS}
    quota = dict.fromkeys(TASKS, 0)
    left = batch_size
    filler = max(TASKS, key=lambda task: (share[task] > 0 and task != "sentence", share[task]))
    # Sentences first, because they cannot make do with a small rest of the batch.
    for task in sorted(TASKS, key=lambda task: (task == filler, task != "sentence")):
        # At most one batch is owed: what can never be paid must not grow into the next phase.
        owed[task] = min(owed[task] + share[task] * batch_size, 2 * batch_size)
        unit = 2 * recipe.positives if task == "sentence" else 1
        count = left if task == filler else min(int(owed[task] / unit + 1e-9) * unit, left // unit * unit)
        quota[task] = max(0, count)
        owed[task] -= quota[task]
        left -= quota[task]
    return quota
