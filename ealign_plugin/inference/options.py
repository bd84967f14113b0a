"""Options of inference and evaluation: each with its default, its help and its range, once.

`InferenceOptions` belong to the model's use and travel with a checkpoint; `EvaluationOptions` belong to a
test. The keys of a YAML's ``run`` section are made of both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from ealign_plugin.alignment.contexts import (
    CONTEXTS,
    DEFAULT_CONTEXT_WORDS,
    DEFAULT_USUAL_CONTEXT,
    check_usual_context,
)
from ealign_plugin.errors import UserError
from ealign_plugin.inference.controls.names import CONTROLS
from ealign_plugin.metrics.protocols import get_protocol
from ealign_plugin.metrics.registry import Metric, check_figure, chosen_metrics
from ealign_plugin.validation import (
    Range,
    option,
    option_defaults,
    option_help,
    option_ranges,
    unknown,
)

AUTO = "auto"
"""``run.threshold`` that is to be chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceOptions:
    """How the two passes select, read and write; keys of a YAML's ``run`` section.

    Raises:
        UserError: a number outside its range.

    Example:
        >>> InferenceOptions(num_beams=1).max_len
        64
    """

    context_words: int = option(
        DEFAULT_CONTEXT_WORDS, "word budget of every context, in training and at test", least=1
    )
    context_tokens: int | None = option(
        None, "budget in tokens of the language model instead; null: words count", least=1
    )
    usual_context: str = option(
        DEFAULT_USUAL_CONTEXT,
        "context that `supplemented` adds to and that all that select fall back to: head, around_image or "
        "another that needs neither pass 1 nor the caption; in training and at test",
    )
    usual_words: int | None = option(
        None,
        "part of the budget (in its unit) that is the usual context's own where something is added to it; "
        "null: half",
        least=0,
    )
    threshold: float | str | None = option(
        0.5,
        "a sentence is selected when P(yes) is at least this; null: each may be; auto: chosen on the first "
        "of valid_splits before the test, and kept with the checkpoint (validations take 0.5)",
        least=0,
        words=(AUTO,),
    )
    top_k: int | None = option(None, "most sentences that are selected; null: no limit", least=1)
    select_words: int | None = option(
        None, "most words of the selected sentences, the best first; null: no limit", least=1
    )
    num_beams: int = option(5, "width of the beam", least=1)
    max_len: int = option(64, "most new tokens of an answer", least=1)
    min_len: int = option(1, "fewest new tokens of an answer, at most max_len", least=0)
    repetition_penalty: float = option(1.0, "divides the logits of tokens already written", above=0)
    length_penalty: float = option(1.0, "exponent of the length in beam search")

    def __post_init__(self) -> None:
        _check_ranges(self)
        budget = self.context_words if self.context_tokens is None else self.context_tokens
        if self.usual_words is not None and self.usual_words > budget:
            raise UserError(
                f"run.usual_words: found {self.usual_words}, expected at most {budget}, a context's budget"
            )
        if self.min_len > self.max_len:
            raise UserError(
                f"run.min_len: found {self.min_len}, expected at most run.max_len, {self.max_len}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationOptions:
    """What an evaluation compares and measures; keys of a YAML's ``run`` section.

    Raises:
        UserError: an unknown context, control, metric, figure or protocol, or a number outside its range.
    """

    test_splits: tuple[str, ...] = option(("test",), "splits that are tested after the training")
    contexts: tuple[str, ...] = option(
        ("head", "refined", "supplemented", "oracle"),
        "context strategies that the test compares; the caption of each is scored",
    )
    valid_contexts: tuple[str, ...] = option(
        ("refined",),
        "the same for validation, where pass 1 runs only if one needs it; none where caption_loss is enough",
    )
    agg_metric: str = option(
        "cider",
        "the figure of the main context (validation: the first) that picks the best checkpoint",
    )
    metrics: tuple[str, ...] | None = option(
        None, "metrics that are measured (`ealign list metrics`); null: all that are registered"
    )
    caption_loss: tuple[str, ...] = option(
        (), "contexts that need no pass 1, in which the loss of the references is measured"
    )
    protocol: str = option("tell", "named scoring protocol (ealign_plugin.metrics)")
    controls: tuple[str, ...] = option(
        (), "rows that say what else explains the main context's figures (`ealign list controls`)"
    )
    shuffled_images: bool = option(False, "the control other_photo (other_image in the data set)")
    subsets: bool = option(
        False,
        "at test also figures for strangers, for unseen last names and for the known apart; reads the names "
        "of the training split once",
    )
    threshold_figure: str = option(
        "entity_f1", "the figure of pass 2 for which `threshold: auto` chooses, as agg_metric names them"
    )
    threshold_candidates: int = option(7, "most thresholds that `threshold: auto` tries", least=1)
    threshold_photos: int = option(
        200, "most photos on which `threshold: auto` tries them, evenly over the split", least=1
    )
    max_skipped: float = option(
        0.05, "largest share of a split's photos that may be unreadable before an evaluation stops", least=0
    )
    show_samples: int = option(3, "samples that are printed in words after the test", least=0)

    def __post_init__(self) -> None:
        for name in ("test_splits", "contexts", "valid_contexts", "caption_loss", "controls"):
            object.__setattr__(self, name, tuple(getattr(self, name) or ()))
        for name in ("contexts", "valid_contexts", "caption_loss"):
            may_be_empty = name == "caption_loss" or (name == "valid_contexts" and self.caption_loss)
            if not getattr(self, name) and not may_be_empty:
                raise UserError(f"run.{name}: at least one context strategy was expected, found none")
            for strategy in getattr(self, name):
                found = CONTEXTS.get(strategy, f"run.{name}")
                if name == "caption_loss" and found.needs_selection:
                    raise UserError(f"run.caption_loss: {strategy!r} needs pass 1; choose another context")
        self._check_controls()
        check_figure(self.agg_metric, self.chosen_metrics())
        get_protocol(self.protocol)
        _check_ranges(self)

    def _check_controls(self) -> None:
        for name in self.controls:
            if name not in CONTROLS:
                raise UserError(unknown("run.controls", name, CONTROLS, "control", list_all=True))
            if name in self.contexts:
                raise UserError(f"run.controls: {name!r} is a context of this run too; rename that")
        if "twin_table" in self.controls and "head" not in self.contexts:
            raise UserError(
                "run.controls: 'twin_table' changes the captions of 'head'; add it to run.contexts"
            )
        alias = ("other_photo",) * self.shuffled_images
        object.__setattr__(self, "controls", tuple(dict.fromkeys((*self.controls, *alias))))

    def chosen_metrics(self) -> list[Metric]:
        """What is measured of the captions of each context."""
        return chosen_metrics(self.metrics)


def chosen_threshold(options: InferenceOptions) -> float | None:
    """The threshold, where it is no more to be chosen.

    Raises:
        UserError: it is ``auto``.
    """
    if isinstance(options.threshold, str):
        raise UserError(
            f"run.threshold: {options.threshold} found, and none was chosen for these weights; give a number "
            "(threshold=0.5), or take the checkpoint that its run tested, which has one"
        )
    return options.threshold


def for_validation(options: InferenceOptions) -> InferenceOptions:
    """The options during a training, where a threshold that is still to be chosen has its default."""
    return replace(options, threshold=InferenceOptions().threshold) if options.threshold == AUTO else options


def _check_ranges(options: InferenceOptions | EvaluationOptions) -> None:
    for name, limits in option_ranges(type(options)).items():
        if problem := limits.problem(f"run.{name}", getattr(options, name)):
            raise UserError(problem)


INFERENCE_OPTIONS = tuple(one.name for one in fields(InferenceOptions))
"""Names of the inference options."""

EVALUATION_OPTIONS = tuple(one.name for one in fields(EvaluationOptions))
"""Names of the evaluation options."""


def defaults() -> dict[str, Any]:
    """The default of every key, as a YAML has it."""
    return option_defaults(EvaluationOptions) | option_defaults(InferenceOptions)


def help_texts() -> dict[str, str]:
    """What every key means."""
    return option_help(EvaluationOptions) | option_help(InferenceOptions)


def ranges() -> dict[str, Range]:
    """What every key may be, of those with limits."""
    return option_ranges(EvaluationOptions) | option_ranges(InferenceOptions)


def from_run(run: Mapping[str, Any]) -> tuple[InferenceOptions, EvaluationOptions]:
    """The options of a ``run`` section; keys that are missing have their defaults, others are not read.

    Raises:
        UserError: a value that the classes refuse, or a usual context that cannot be one.
    """
    inference = InferenceOptions(**{name: run[name] for name in INFERENCE_OPTIONS if name in run})
    check_usual_context(inference.usual_context)
    return (
        inference,
        EvaluationOptions(**{name: run[name] for name in EVALUATION_OPTIONS if name in run}),
    )
