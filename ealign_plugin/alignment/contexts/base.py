"""What a context is, how long it may be, and the registry of the strategies that make one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ealign_plugin.alignment.prompts import Wording
from ealign_plugin.alignment.selection import Selection, count_words, unrepeated
from ealign_plugin.errors import UserError
from ealign_plugin.news import NewsSample
from ealign_plugin.registry import Registry

DEFAULT_CONTEXT_WORDS = 500
"""``run.context_words`` where a config does not set it."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How long a context may be, how its length is measured, and how a list of names is written in it.

    Args:
        number: The largest length; at least 1.
        length: Measures a text: its words (split at white space), or its tokens.
        list_names: Names → the text that shows them in a context.

    Raises:
        UserError: a number below 1.

    Example:
        >>> Budget(3).fits("Ana Ruiz spoke."), Budget(3).fits("Ana Ruiz spoke in Oslo.")
        (True, False)
    """

    number: int
    length: Callable[[str], int] = count_words
    list_names: Callable[[Sequence[str]], str] = Wording().list_names

    def __post_init__(self) -> None:
        if self.number < 1:
            raise UserError(f"context: a budget of at least 1 was expected, found {self.number}")

    def fits(self, text: str) -> bool:
        """Is the text within the budget?"""
        return self.length(text) <= self.number


def context_budget(
    wording: Wording,
    *,
    words: int = DEFAULT_CONTEXT_WORDS,
    tokens: int | None = None,
    count_tokens: Callable[[str], int] | None = None,
) -> Budget:
    """The budget that ``run.context_words`` and ``run.context_tokens`` set.

    Args:
        wording: How names are listed.
        words: Largest number of words; counts where ``tokens`` is None.
        tokens: Largest number of tokens of the finished context.
        count_tokens: Text → number of the model's tokens; needed where ``tokens`` is set.

    Raises:
        UserError: a number below 1.
        ValueError: tokens without their counter.
    """
    if tokens is None:
        return Budget(words, count_words, wording.list_names)
    if count_tokens is None:
        raise ValueError("a context of so many tokens needs count_tokens, the model's token counter")
    return Budget(tokens, count_tokens, wording.list_names)


@dataclass(frozen=True, slots=True)
class Context:
    """What the model reads: the text, and which of the article's sentences stand in it.

    Args:
        text: The text.
        sentences: Indexes into ``sample.sentences``, ascending.
    """

    text: str
    sentences: tuple[int, ...] = ()


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
            that was selected twice the first is read.

    Raises:
        UserError: an unknown strategy, or a selection is missing.
    """
    found = context_strategy(strategy)
    if not found.needs_selection:
        return found.make(sample, budget, None)
    if selection is None:
        raise UserError(f"context {strategy!r} needs a selection from pass 1, none was given")
    once = unrepeated(selection.sentences, lambda index: sample.sentences[index].text)
    return found.make(sample, budget, replace(selection, sentences=tuple(once)))
