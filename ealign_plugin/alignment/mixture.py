"""Which tasks, contexts and negatives a training batch holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from ealign_plugin.alignment.own_selections import read_selections
from ealign_plugin.alignment.tasks import TASKS, TaskOptions
from ealign_plugin.alignment.tasks.base import check_shares
from ealign_plugin.errors import UserError
from ealign_plugin.validation import check_keys

WORDS_MOVED = (
    "there is no such key any more; set run.context_words (or run.context_tokens), the one budget of "
    "training, evaluation and captioner"
)


def _default_shares() -> dict[str, float]:
    return {name: task.default_share for name, task in TASKS.items() if task.default_share}


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskMixture(TaskOptions):
    """Which examples the training makes: the ``recipe`` of a data set's config.

    Args:
        tasks: Share of each task among the examples of a batch; any registered task.

    Raises:
        UserError: as `TaskOptions`; also an unknown task.
    """

    tasks: Mapping[str, float] = field(default_factory=_default_shares)

    def __post_init__(self) -> None:
        check_shares("recipe.tasks", self.tasks, TASKS)
        TaskOptions.__post_init__(self)

    def changed(self, changes: Mapping[str, object]) -> TaskMixture:
        """The mixture with some values replaced (a phase of the training schedule).

        Raises:
            UserError: a name that no mixture has, or a value that is outside its range.
        """
        if "words" in changes:
            raise UserError(f"recipe.words: {WORDS_MOVED}")
        check_keys("recipe", changes, [option.name for option in fields(self)])
        # An empty mapping of shares in a config means: as it was.
        return replace(self, **{k: v for k, v in changes.items() if v != {}})  # type: ignore[arg-type]

    def identity(self, words: int) -> dict[str, Any]:
        """JSON values that tell two mixtures apart, in the order and by the names of older checkpoints.

        Options that these do not know are left out where they have their default. Of a file of selections its
        content counts.

        Args:
            words: Budget of the contexts.

        Raises:
            UserError: this file cannot be read.
        """
        values = asdict(self)
        if not values.pop("selections"):
            del values["own_share"]
        else:
            values["selections"] = read_selections(self.selections).sha256
        for name in ("extra_names", "permute_labels"):
            if not values[name]:
                del values[name]
        first = {name: dict(values.pop(name)) for name in ("tasks", "contexts", "entity_contexts")}
        return {**first, "words": words, **values}
