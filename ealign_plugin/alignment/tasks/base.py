"""What an alignment task is, and the registry of all tasks.

A task makes training examples from an annotated sample; a task that is also asked at test words its
question, reads the model's answer and scores the answers of a split. Another package adds one by a class::

    @register_task
    class Weather(AlignmentTask):
        \"\"\"Does it rain in the photo?\"\"\"

        name = "weather"
        template = "Does it rain? {context} Answer:"

        def examples(self, sample, options, wording, budget, rng):
            target = "yes" if "rain" in sample.caption else "no"
            return [self.example(wording.fill(self.template, "{context}", sample.headline), target)]

        def ask(self, sample, wording, budget):
            return wording.fill(self.template, "{context}", sample.headline)

and ``recipe.tasks: {caption: 1, weather: 0.5}`` mixes it into every batch.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from ealign_plugin.alignment.contexts import CONTEXTS, Budget, Context, build_context
from ealign_plugin.alignment.own_selections import read_selections
from ealign_plugin.alignment.prompts import Prompt, Wording
from ealign_plugin.alignment.selection import Selection, noisy_oracle
from ealign_plugin.errors import UserError
from ealign_plugin.news import NewsSample
from ealign_plugin.registry import Registry
from ealign_plugin.validation import Number, unknown

SHARES = Number(least=0)
PROBABILITIES = Number(least=0, most=1)
OPTION_RANGES = {
    "positives": Number(least=1, whole=True),
    **dict.fromkeys(("caption_positive", "any_negative", "miss", "extra", "extra_names"), PROBABILITIES),
    "own_share": PROBABILITIES,
}
"""Option of `TaskOptions` → its range."""


@dataclass(frozen=True, slots=True)
class Example:
    """One thing to learn: instruction → target. The photo joins it in the stream.

    Args:
        task: Name of the task.
        instruction: What the language model reads.
        question: The instruction without what is to be read (see `Prompt`).
        target: What the model learns to answer.
    """

    task: str
    instruction: str
    question: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """What the config says of the examples that a task makes; keys of a data set's ``recipe``.

    Args:
        contexts: Share of each context strategy among caption examples.
        entity_contexts: The same among entity examples.
        positives: Positive sentences from a sample at a time; as many negatives.
        caption_positive: Share of the positives that are the caption itself.
        any_negative: Share of the negatives that are any sentence without a shared entity; the others hold
            an entity of the same type as their positive (hard negatives).
        miss: Mistakes of the selections made from labels (see `noisy_oracle`): left out.
        extra: Mistakes of the selections made from labels: added.
        extra_names: Mistakes of their names: names of the article that are not in the caption, so many for
            each right one.
        selections: File of a model's own selections (`ealign_plugin.alignment.own_selections`); empty: all
            are made from labels.
        own_share: Share of the selections that are the model's own, as far as the file holds them.
        permute_labels: A placebo: the alignment tasks ask what they would ask, and their answers say nothing
            of the photo. Yes and no are permuted among the sentences that are drawn from an article; a list
            holds as many names of the article, any of those that the context shows. Contexts of captions and
            all other draws stay as they were.

    Raises:
        UserError: unknown names, shares that are negative or all zero, a number outside its range, or a file
            that is no text.
    """

    contexts: Mapping[str, float] = field(default_factory=lambda: {"refined": 1.0})
    entity_contexts: Mapping[str, float] = field(default_factory=lambda: {"refined": 1.0})
    positives: int = 2
    caption_positive: float = 0.1
    any_negative: float = 0.25
    miss: float = 0.1
    extra: float = 0.2
    extra_names: float = 0.0
    selections: str = ""
    own_share: float = 0.5
    permute_labels: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.permute_labels, bool):
            raise UserError(f"recipe.permute_labels: true or false expected, found {self.permute_labels!r}")
        if not isinstance(self.selections, str):
            raise UserError(f"recipe.selections: a file was expected, found {self.selections!r}")
        check_shares("recipe.contexts", self.contexts, CONTEXTS)
        check_shares("recipe.entity_contexts", self.entity_contexts, CONTEXTS)
        for name, numbers in OPTION_RANGES.items():
            numbers.check(f"recipe.{name}", getattr(self, name))


def check_shares(where: str, shares: object, known: Registry[Any]) -> None:
    """Refuse what is no mapping of registered names to shares.

    Args:
        where: The config key, for the message.
        shares: What was found there.
        known: Where the names are registered.

    Raises:
        UserError: a share that is no number of 0 or more, an unknown name, or no share above 0.
    """
    if not isinstance(shares, Mapping) or not all(map(SHARES.accepts, shares.values())):
        raise UserError(f"{where}: names with shares of 0 or more were expected, found {shares!r}")
    for key in shares:
        if key not in known:
            raise UserError(unknown(where, key, known, known.what, list_all=True))
    if not any(shares.values()):
        raise UserError(f"{where}: a share above 0 was expected, found {shares!r}")


class AlignmentTask(ABC):
    """One of the things that the model learns about a photo; `register_task` makes it known.

    Only `examples` must be written. A task whose `ask` gives a prompt is asked of every test photo, and
    what `score` gives stands in metrics.json under ``tasks/<name>/``.
    """

    name: ClassVar[str]
    """As ``recipe.tasks`` names it."""
    default_share: ClassVar[float] = 0.0
    """Its share of a batch's examples where the config sets no ``recipe.tasks``."""

    @abstractmethod
    def examples(
        self,
        sample: NewsSample,
        options: TaskOptions,
        wording: Wording,
        budget: Budget,
        rng: random.Random,
    ) -> list[Example]:
        """The training examples that a sample gives at a time; none where it cannot give any.

        Args:
            sample: An annotated sample, as `Wording.sample` gives it.
            options: What the config says.
            wording: Words the prompts.
            budget: Of the contexts.
            rng: Where all draws come from, so that a resumed training draws alike.
        """

    def examples_at_once(self, options: TaskOptions) -> int:
        """So many examples come together and are not divided between batches."""
        return 1

    def ask(self, sample: NewsSample, wording: Wording, budget: Budget) -> Prompt | None:
        """What a test asks about a photo; None: the task is not asked of this photo.

        Args:
            sample: An annotated sample, as `Wording.sample` gives it; its caption is the reference and must
                not be put into the prompt.
            wording: Words the prompt.
            budget: Of a context.
        """
        return None

    def parse(self, answer: str, wording: Wording) -> Any:
        """What an answer of the model means: JSON values."""
        return answer.strip()

    def score(self, samples: Sequence[NewsSample], answers: Sequence[Any]) -> dict[str, float | None]:
        """Figures of a split; None where a figure is undefined.

        Args:
            samples: The samples that were asked about, as `Wording.sample` gives them.
            answers: What `parse` gave for each.
        """
        return {}

    def example(self, prompt: Prompt, target: str) -> Example:
        """An example of this task."""
        return Example(self.name, prompt.instruction, prompt.question, target)


TASKS: Registry[AlignmentTask] = Registry("alignment task")
"""Name → task."""

T = TypeVar("T", bound=type[AlignmentTask])


def register_task(cls: T) -> T:
    """Register a task under the ``name`` of its class.

    Raises:
        UserError: another class has the name.
    """
    TASKS.register(cls.name, cls())
    return cls


def draw_context(
    sample: NewsSample,
    shares: Mapping[str, float],
    options: TaskOptions,
    budget: Budget,
    rng: random.Random,
) -> Context:
    """A context by a strategy that is drawn by its share, of a selection as `draw_selection` gives it."""
    strategy = rng.choices(list(shares), list(shares.values()))[0]
    selection = None
    if CONTEXTS[strategy].needs_selection:
        selection = draw_selection(sample, options, rng)
    return build_context(sample, strategy, budget, selection)


def draw_selection(sample: NewsSample, options: TaskOptions, rng: random.Random) -> Selection:
    """The model's own selection, or the oracle's with mistakes.

    Raises:
        UserError: the file of the model's own cannot be read, or belongs to other data.
    """
    if options.selections and rng.random() < options.own_share:
        if own := read_selections(options.selections).of(sample):
            return own
    return noisy_oracle(sample, rng, miss=options.miss, extra=options.extra, extra_names=options.extra_names)
