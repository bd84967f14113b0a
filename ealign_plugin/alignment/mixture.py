"""Which tasks, contexts and negatives a training batch holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ealign_plugin.alignment.contexts import STRATEGIES
from ealign_plugin.errors import UserError
from ealign_plugin.validation import check_names, is_number_between

TASKS = ("caption", "sentence", "entity")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskMixture:
    """Which examples a visit to a sample gives.

    Args:
        tasks: Share of each task among the examples of a batch.
        contexts: Share of each context strategy among caption examples.
        entity_contexts: The same among entity examples.
        words: Word budget of the contexts.
        positives: Positive sentences per visit; as many negatives.
        caption_positive: Share of the positives that are the caption itself.
        any_negative: Share of the negatives that are any sentence without a shared entity; the others hold
            an entity of the same type as their positive (hard negatives).
        miss: Mistakes of the selections made from labels (see `noisy_oracle`): left out.
        extra: Mistakes of the selections made from labels: added.

    Raises:
        UserError: unknown names, shares that are negative or all zero, or a number outside its range.
    """

    tasks: Mapping[str, float] = field(
        default_factory=lambda: {"caption": 1.0, "sentence": 2.0, "entity": 0.3}
    )
    contexts: Mapping[str, float] = field(default_factory=lambda: {"refined": 1.0})
    entity_contexts: Mapping[str, float] = field(default_factory=lambda: {"refined": 1.0})
    words: int = 100
    positives: int = 2
    caption_positive: float = 0.1
    any_negative: float = 0.25
    miss: float = 0.1
    extra: float = 0.2

    def __post_init__(self) -> None:
        for name, shares, known in (
            ("tasks", self.tasks, TASKS),
            ("contexts", self.contexts, STRATEGIES),
            ("entity_contexts", self.entity_contexts, STRATEGIES),
        ):
            if not isinstance(shares, Mapping) or not all(is_number_between(v, 0) for v in shares.values()):
                raise UserError(
                    f"recipe.{name}: names with shares of 0 or more were expected, found {shares!r}"
                )
            for key in shares:
                if key not in known:
                    raise UserError(f"recipe.{name}: {key!r} is unknown; choose from {', '.join(known)}")
            if not any(shares.values()):
                raise UserError(f"recipe.{name}: a share above 0 was expected, found {shares!r}")
        for name in ("words", "positives"):
            value = getattr(self, name)
            if not isinstance(value, int) or not is_number_between(value, 1):
                raise UserError(f"recipe.{name}: a whole number of at least 1 was expected, found {value!r}")
        for name in ("caption_positive", "any_negative", "miss", "extra"):
            value = getattr(self, name)
            if not is_number_between(value, 0, 1):
                raise UserError(f"recipe.{name}: a number from 0 to 1 was expected, found {value!r}")

    def changed(self, changes: Mapping[str, object]) -> TaskMixture:
        """The recipe with some values replaced (a phase of the training schedule).

        Raises:
            UserError: a name that no recipe has.
        """
        check_names(self, changes, "recipe")
        # An empty mapping of shares in a config means: as it was.
        return replace(self, **{k: v for k, v in changes.items() if v != {}})  # type: ignore[arg-type]
