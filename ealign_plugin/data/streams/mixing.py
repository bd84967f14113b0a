"""Decoded samples → examples, so that every batch holds the mixture's shares."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor

from ealign_plugin.alignment.contexts import (
    DEFAULT_CONTEXT_WORDS,
    DEFAULT_USUAL_CONTEXT,
    Budget,
    context_budget,
)
from ealign_plugin.alignment.mixture import TaskMixture
from ealign_plugin.alignment.own_selections import read_selections
from ealign_plugin.alignment.prompts import Wording
from ealign_plugin.alignment.tasks import BUILT_IN_TASKS, TASKS, Example
from ealign_plugin.data.shards.read import RawSample
from ealign_plugin.data.streams.order import this_worker
from ealign_plugin.data.streams.position import ConsumerState
from ealign_plugin.data.streams.refreshed import RefreshedSelections
from ealign_plugin.errors import UserError
from ealign_plugin.news import NewsSample
from ealign_plugin.validation import Number

BUDGETS = Number(least=1, whole=True, allow_none=True)


@dataclass
class TaskMixer:
    """Decoded samples → examples, so that every batch holds the recipe's mix.

    A sample gives what the batch still lacks of each task, so its photo is used by several examples of a
    batch, which share ``key`` and ``image``.

    Args:
        recipe: Which examples to make.
        wording: How they are worded.
        batch_size: Examples in a batch.
        seed: Seed of all choices.
        phases: Changes of the recipe over the training: ``{"until": batch, **changes}``, in order; the
            recipe itself holds after the last.
        context_words: Budget of the contexts in words (``run.context_words``).
        context_tokens: Budget in the model's tokens instead (``run.context_tokens``); needs
            ``count_tokens``.
        count_tokens: Text → number of the model's tokens.
        usual_context: What is selected joins it or falls back to it (``run.usual_context``).
        usual_words: Its own part of the budget (``run.usual_words``).
        refreshed: Files of the model's own selections that the training writes as it learns; they replace the
            recipe's as soon as there is one.

    Raises:
        UserError: the batch cannot hold the mix, the phases are not in order, or a file of selections cannot
            be read.
    """

    recipe: TaskMixture
    wording: Wording
    batch_size: int
    seed: int = 0
    phases: Sequence[Mapping[str, Any]] = ()
    context_words: int = DEFAULT_CONTEXT_WORDS
    context_tokens: int | None = None
    count_tokens: Callable[[str], int] | None = None
    usual_context: str = DEFAULT_USUAL_CONTEXT
    usual_words: int | None = None
    refreshed: RefreshedSelections | None = None

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
        for name in ("context_words", "context_tokens"):
            BUDGETS.check(f"run.{name}", getattr(self, name))
        named = set(BUILT_IN_TASKS)
        for _, recipe in [*self._recipes, (0, self.recipe)]:
            _check_batch(recipe, self.batch_size)
            if recipe.selections:
                read_selections(recipe.selections)
            named |= set(recipe.tasks)
        self._tasks = [task for task in TASKS if task in named]

    def trained_tasks(self) -> list[str]:
        """Names of the tasks that have a share above 0 at some time of the training."""
        recipes = [self.recipe, *(recipe for _, recipe in self._recipes)]
        return [task for task in TASKS if any(recipe.tasks.get(task) for recipe in recipes)]

    def recipe_at(self, batch: int) -> TaskMixture:
        """The recipe that holds for the batch with this number."""
        found = next((recipe for until, recipe in self._recipes if batch < until), self.recipe)
        path = self.refreshed.path_of(batch) if self.refreshed else None
        return found if path is None else replace(found, selections=str(path))

    def budget(self) -> Budget:
        """The budget of the contexts.

        Raises:
            ValueError: it counts tokens, and there is no counter yet.
        """
        return context_budget(
            self.wording,
            words=self.context_words,
            tokens=self.context_tokens,
            count_tokens=self.count_tokens,
            usual_context=self.usual_context,
            usual_words=self.usual_words,
        )

    def identity(self) -> dict[str, Any]:
        """What must be the same for the examples to be, by the keys of the config.

        Options that older checkpoints do not know are left out where they have their default.
        """
        values = {
            "run.context_tokens": self.context_tokens,
            "run.usual_context": None if self.usual_context == DEFAULT_USUAL_CONTEXT else self.usual_context,
            "run.usual_words": self.usual_words,
            "run.own_selections_from": self.refreshed and self.refreshed.first,
            "run.own_selections_every": self.refreshed and self.refreshed.every,
            "run.own_selections_photos": self.refreshed and self.refreshed.photos,
        }
        return {
            "recipe": self.recipe.identity(self.context_words),
            "phases": [_phase_identity(phase) for phase in self.phases],
            "templates": asdict(self.wording.templates),
            **{key: value for key, value in values.items() if value is not None},
        }

    def __call__(self, stream: Iterable[tuple[RawSample, NewsSample, Tensor]]) -> Iterator[dict[str, Any]]:
        return self.mix(stream, *this_worker())

    def mix(
        self,
        stream: Iterable[tuple[RawSample, NewsSample, Tensor]],
        worker: int,
        workers: int,
        start: ConsumerState | None = None,
    ) -> Iterator[dict[str, Any]]:
        """The examples of one worker, from a state on; the last of each batch holds the state after it.

        Raises:
            UserError: ten thousand samples in a row gave no example of a task.
        """
        start = start or ConsumerState()
        number = worker if start.batch is None else start.batch
        carry_over = {task: start.carry_over.get(task, 0.0) for task in self._tasks}
        budget = self.budget()
        samples = iter(stream)
        while True:
            recipe = self.recipe_at(number)
            quota = task_quota(recipe, self.batch_size, carry_over)
            idle = 0
            while any(quota.values()):
                raw, sample, image = next(samples)
                sample = self.wording.sample(sample)
                rng = random.Random(f"{self.seed}/{number}/{raw.position.epoch}/{raw.key}")
                made = 0
                for task in self._tasks:
                    if quota[task] > 0:
                        made_of_task = TASKS[task].examples(sample, recipe, self.wording, budget, rng)
                        for example in made_of_task[: quota[task]]:
                            quota[task] -= 1
                            made += 1
                            item = self._item(example, image, raw.key)
                            if not any(quota.values()):
                                state = ConsumerState(raw.position, number + workers, dict(carry_over))
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


def _phase_identity(phase: Mapping[str, Any]) -> dict[str, Any]:
    """The phase; of a file of selections its content counts."""
    if path := phase.get("selections"):
        return {**phase, "selections": read_selections(path).sha256}
    return dict(phase)


def _check_batch(recipe: TaskMixture, batch_size: int) -> None:
    """Refuse a batch that cannot hold the examples that come together, as pairs of sentences do."""
    tasks = [task for task, share in recipe.tasks.items() if share > 0]
    together = {task: TASKS[task].examples_at_once(recipe) for task in tasks}
    for task, count in together.items():
        if count > batch_size:
            raise UserError(
                f"a batch of {batch_size} examples cannot hold the {count} examples of the task {task} that "
                f"come together (recipe.positives {recipe.positives}); change run.batch_size_train or "
                "recipe.positives"
            )
    if all(count > 1 for count in together.values()) and batch_size % math.gcd(*together.values()):
        raise UserError(
            f"a batch of {batch_size} examples is no multiple of the {math.gcd(*together.values())} examples "
            f"of the task {' and '.join(tasks)} that come together (recipe.positives {recipe.positives}); "
            "change run.batch_size_train or give another task a share"
        )


def task_quota(recipe: TaskMixture, batch_size: int, carry_over: dict[str, float]) -> dict[str, int]:
    """How many examples of each task the next batch holds; what does not divide is left to later batches.

    Tasks whose examples come together get whole multiples, the largest of the other tasks fills what is
    left.

    Args:
        recipe: The shares.
        batch_size: Examples in the batch.
        carry_over: Task → examples that earlier batches could not hold; changed to what this one leaves.
    """
    tasks = list(carry_over)
    total = sum(recipe.tasks.values())
    share = {task: recipe.tasks.get(task, 0.0) / total for task in tasks}
    together = {task: TASKS[task].examples_at_once(recipe) for task in tasks}
    quota = dict.fromkeys(tasks, 0)
    left = batch_size
    filler = max(tasks, key=lambda task: (share[task] > 0 and together[task] == 1, share[task]))
    # Pairs first, because they cannot make do with a small rest of the batch.
    for task in sorted(tasks, key=lambda task: (task == filler, together[task] == 1)):
        # At most one batch is carried over: what never finds room must not grow into the next phase.
        carry_over[task] = min(carry_over[task] + share[task] * batch_size, 2 * batch_size)
        unit = together[task]
        room = min(int(carry_over[task] / unit + 1e-9) * unit, left // unit * unit)
        quota[task] = max(0, left if task == filler else room)
        carry_over[task] -= quota[task]
        left -= quota[task]
    return quota
