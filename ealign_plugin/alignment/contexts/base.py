"""What a context is, how long it may be, and the registry of the strategies that make one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ealign_plugin.alignment.prompts import Wording
from ealign_plugin.alignment.selection import Selection, count_words, unrepeated
from ealign_plugin.errors import UserError
from ealign_plugin.news import NewsSample
from ealign_plugin.registry import Registry

DEFAULT_CONTEXT_WORDS = 500
"""``run.context_words`` where a config does not set it."""

DEFAULT_USUAL_CONTEXT = "head"
"""``run.usual_context`` where a config does not set it."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How long a context may be, how its length is measured, and how a list of names is written in it.

    Args:
        number: The largest length; at least 1.
        length: Measures a text: its words (split at white space), or its tokens.
        list_names: Names → the text that shows them in a context.
        usual: Name of the usual context (``run.usual_context``): what is selected joins it or falls back to
            it.
        usual_least: What of the number is the usual context's own where something joins it
            (``run.usual_words``); None: half.

    Raises:
        UserError: a number below 1, a part that is larger than the whole, or a usual context that is unknown,
            needs a selection or reads the reference caption.

    Example:
        >>> Budget(3).fits("Ana Ruiz spoke."), Budget(3).fits("Ana Ruiz spoke in Oslo.")
        (True, False)
    """

    number: int
    length: Callable[[str], int] = count_words
    list_names: Callable[[Sequence[str]], str] = Wording().list_names
    usual: str = DEFAULT_USUAL_CONTEXT
    usual_least: int | None = None

    def __post_init__(self) -> None:
        if self.number < 1:
            raise UserError(f"context: a budget of at least 1 was expected, found {self.number}")
        if self.usual_least is not None and not 0 <= self.usual_least <= self.number:
            raise UserError(
                f"run.usual_words: found {self.usual_least}, expected 0 to {self.number}, a context's budget"
            )
        check_usual_context(self.usual)

    @property
    def usual_part(self) -> int:
        """So much of the number is the usual context's own where something joins it."""
        return self.number // 2 if self.usual_least is None else self.usual_least

    def fits(self, text: str) -> bool:
        """Is the text within the budget?"""
        return self.length(text) <= self.number


def context_budget(
    wording: Wording,
    *,
    words: int = DEFAULT_CONTEXT_WORDS,
    tokens: int | None = None,
    count_tokens: Callable[[str], int] | None = None,
    usual_context: str = DEFAULT_USUAL_CONTEXT,
    usual_words: int | None = None,
) -> Budget:
    """The budget that ``run.context_words``, ``context_tokens``, ``usual_context`` and ``usual_words`` set.

    Args:
        wording: How names are listed.
        words: Largest number of words; counts where ``tokens`` is None.
        tokens: Largest number of tokens of the finished context.
        count_tokens: Text → number of the model's tokens; needed where ``tokens`` is set.
        usual_context: See `Budget`.
        usual_words: The part of the usual context, in tokens where ``tokens`` is set; None: half.

    Raises:
        UserError: as `Budget`.
        ValueError: tokens without their counter.
    """
    if tokens is None:
        return Budget(words, count_words, wording.list_names, usual_context, usual_words)
    if count_tokens is None:
        raise ValueError("a context of so many tokens needs count_tokens, the model's token counter")
    return Budget(tokens, count_tokens, wording.list_names, usual_context, usual_words)


@dataclass(frozen=True, slots=True)
class Context:
    """What the model reads: the text, and which of the article's sentences stand in it.

    Args:
        text: The text.
        sentences: Indexes into ``sample.sentences``, ascending.
        wanted: Indexes of all sentences that a larger budget would add to, the most wanted first; what
            `compose` was given. Empty: a larger budget adds none.
        headline: What a budget that is large enough shows in front of the sentences.
    """

    text: str
    sentences: tuple[int, ...] = ()
    wanted: tuple[int, ...] = field(default=(), compare=False, repr=False)
    headline: str = field(default="", compare=False, repr=False)


MakeContext = Callable[[NewsSample, Budget, Selection | None], Context]


class ContextStrategy:
    """A registered way to make a context; its name, module and docstring are those of its function.

    Args:
        make: Sample, budget and selection → context.
        needs_selection: It reads what pass 1 selected; ``make`` then always gets a selection.
        reads_caption: It reads the reference caption: an upper bound, never a result, and of no use in a
            captioner.
    """

    def __init__(self, make: MakeContext, needs_selection: bool = False, reads_caption: bool = False) -> None:
        self.make, self.needs_selection, self.reads_caption = make, needs_selection, reads_caption
        self.__doc__, self.__module__, self.__qualname__ = make.__doc__, make.__module__, make.__qualname__


CONTEXTS: Registry[ContextStrategy] = Registry("context strategy")
"""Name → strategy."""


def register_context(
    name: str, *, needs_selection: bool = False, reads_caption: bool = False
) -> Callable[[MakeContext], MakeContext]:
    """Register a function as the context strategy of this name; see `ContextStrategy` for the options.

    Raises:
        UserError: another function has the name.
    """

    def register(make: MakeContext) -> MakeContext:
        CONTEXTS.register(name, ContextStrategy(make, needs_selection, reads_caption))
        return make

    return register


def context_strategy(name: str) -> ContextStrategy:
    """The registered strategy of this name.

    Raises:
        UserError: there is none; the message lists those that there are.
    """
    return CONTEXTS.get(name)


def check_usual_context(name: str) -> None:
    """Refuse a usual context that could not be read without pass 1 and the reference caption.

    Raises:
        UserError: it is unknown, needs a selection or reads the caption.
    """
    where = "run.usual_context"
    strategy = CONTEXTS.get(name, where)
    if strategy.needs_selection or strategy.reads_caption:
        what = "needs pass 1" if strategy.needs_selection else "reads the reference caption"
        raise UserError(f"{where}: {name!r} {what}; choose another context, such as 'head'")


def build_context(
    sample: NewsSample, strategy: str, budget: Budget, selection: Selection | None = None
) -> Context:
    """Make the context of one sample.

    Args:
        sample: An annotated sample, as `Wording.sample` gives it.
        strategy: Name of a registered strategy.
        budget: The longest context, headline and names included; ``full`` and ``none`` ignore it. Names or
            headline take half of it at most: names that do not fit are left out, and so is a headline. The
            finished context is measured whole, so that its tokens are within the budget even where a joint
            costs one.
        selection: What pass 1 chose; needed where the strategy reads it, else without effect. Of a sentence
            that was selected twice the first is read. Over budget the best-scored sentences stay; without
            scores the first.

    Raises:
        UserError: an unknown strategy, or a selection is missing.
    """
    found = context_strategy(strategy)
    if not found.needs_selection:
        return found.make(sample, budget, None)
    if selection is None:
        raise UserError(f"context {strategy!r} needs a selection from pass 1, none was given")
    once = unrepeated(selection.sentences, lambda index: sample.sentences[index].text)
    return found.make(sample, budget, selection.only(once))
