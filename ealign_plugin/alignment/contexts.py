"""Article → context: the part of an article that the model reads before it answers.

Strategies (EAMA, arXiv 2402.19404; the baselines are Transform and Tell's and ours):

====================  =============================================================================
``none``              nothing
``head``              the first sentences
``full``              the whole article
``around_image``      the headline, the first paragraph, then paragraphs before and after the photo in
                      turn, the nearest first (Transform and Tell, arXiv 2004.08070); ``head`` where the
                      photo's position is unknown
``refined``           the selected sentences (v1 of the paper)
``supplemented``      the head, and the selected sentences and names (v5)
``oracle_sentences``  the sentences that the reference caption would select: an upper bound
``oracle_entities``   the head, and the names that the reference caption would select: the same
``oracle``            these sentences and names
====================  =============================================================================

Every context keeps the article's order and its budget, and never cuts a sentence unless that sentence
alone exceeds the budget (what the names or the headline leave of it). Where nothing is selected, each
falls back to ``head``. Strategies that read a selection or the reference caption read a sentence that the
article repeats once, in training and at test; the others read the article as it stands.

Another package adds a strategy by one function, which training, evaluation and captioner can use at once::

    @register_context("last")
    def last(sample: NewsSample, budget: Budget, selection: Selection | None) -> Context:
        return compose(sample, range(len(sample.sentences))[::-1], budget)
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest

from ealign_plugin.alignment.prompts import Wording, fold_white_space
from ealign_plugin.alignment.selection import Selection, count_words, first_within, oracle, unrepeated
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


def compose(
    sample: NewsSample,
    wanted: Iterable[int],
    budget: Budget,
    *,
    headline: str = "",
    names: Sequence[str] = (),
    once: bool = False,
    complete: bool = False,
) -> Context:
    """The context of the first wanted sentences that fit the budget, in the article's order.

    Args:
        sample: The sample.
        wanted: Indexes of sentences, the most wanted first; the head of the article where there are none.
        budget: The longest context, headline and names included.
        headline: Stands in front, if it takes no more than half of the budget.
        names: Stand behind, as many as fit into half of the budget.
        once: Leave out a sentence that was read already, whatever its case, spacing and quotes.
        complete: Fill what is left of the budget with the head of the article.
    """

    def text(index: int) -> str:
        return sample.sentences[index].text

    def size(index: int) -> int:
        return budget.length(text(index))

    headline = fold_white_space(headline)
    if budget.length(headline) > budget.number // 2:
        headline = ""
    listed = _first_names(names, budget)
    extra = " ".join(part for part in (headline, listed) if part)
    kept, left = first_within(
        unrepeated(wanted, text) if once else wanted,
        budget.number - (budget.length(extra) if extra else 0),
        size,
    )
    if complete or not kept:
        taken = set(kept)
        rest = (index for index in range(len(sample.sentences)) if index not in taken)
        kept += first_within(
            unrepeated(rest, text, kept) if once else rest, left, size, at_least_one=not kept
        )[0]
    return _fitted(sample, kept, headline, listed, budget)


# The strategies


@register_context("none")
def none(sample: NewsSample, budget: Budget, selection: Selection | None) -> Context:
    """Nothing: only the photo is looked at."""
    return Context("")


@register_context("head")
def head(sample: NewsSample, budget: Budget, selection: Selection | None) -> Context:
    """The first sentences."""
    return compose(sample, range(len(sample.sentences)), budget)


@register_context("full")
def full(sample: NewsSample, budget: Budget, selection: Selection | None) -> Context:
    """The whole article, whatever the budget."""
    return Context(
        _joined(*(sentence.text for sentence in sample.sentences)), tuple(range(len(sample.sentences)))
    )


@register_context("around_image")
def around_image(sample: NewsSample, budget: Budget, selection: Selection | None) -> Context:
    """Headline, first paragraph, then paragraphs around the photo, the nearest first."""
    if sample.image_position is None:
        return head(sample, budget, selection)
    return compose(sample, _around(sample, sample.image_position), budget, headline=sample.headline)


@register_context("refined", needs_selection=True)
def refined(sample: NewsSample, budget: Budget, selection: Selection | None) -> Context:
    """The selected sentences."""
    assert selection is not None
    return compose(sample, selection.sentences, budget, once=True)


@register_context("supplemented", needs_selection=True)
def supplemented(sample: NewsSample, budget: Budget, selection: Selection | None) -> Context:
    """The selected sentences and names, and as much of the head as fits."""
    assert selection is not None
    return compose(sample, selection.sentences, budget, names=selection.entities, once=True, complete=True)


@register_context("oracle", reads_caption=True)
def both_oracles(sample: NewsSample, budget: Budget, selection: Selection | None) -> Context:
    """The sentences and names that the reference caption would select."""
    right = oracle(sample)
    return compose(sample, right.sentences, budget, names=right.entities, once=True)


@register_context("oracle_sentences", reads_caption=True)
def oracle_sentences(sample: NewsSample, budget: Budget, selection: Selection | None) -> Context:
    """The sentences that the reference caption would select."""
    return compose(sample, oracle(sample, entities=False).sentences, budget, once=True)


@register_context("oracle_entities", reads_caption=True)
def oracle_entities(sample: NewsSample, budget: Budget, selection: Selection | None) -> Context:
    """The head, and the names that the reference caption would select."""
    return compose(sample, (), budget, names=oracle(sample, sentences=False).entities, once=True)


def _around(sample: NewsSample, position: int) -> Iterable[int]:
    """All sentences in the order in which they are wanted where the photo stands before this paragraph."""
    paragraphs: dict[int, list[int]] = {}
    for index, sentence in enumerate(sample.sentences):
        paragraphs.setdefault(sentence.paragraph, []).append(index)
    first, *others = sorted(paragraphs) or [position]
    # Backwards, so that the budget ends on the side that is far from the photo.
    before = [paragraphs[p][::-1] for p in reversed(others) if p < position]
    after = [paragraphs[p] for p in others if p >= position]
    turns = chain.from_iterable(zip_longest(before, after, fillvalue=[]))
    return chain(paragraphs.get(first, []), chain.from_iterable(turns))


def _first_names(names: Sequence[str], budget: Budget) -> str:
    """The list of the first names that fit half of the budget; empty where none does."""
    text = ""
    for count in range(1, len(names) + 1):
        longer = budget.list_names(names[:count])
        if budget.length(longer) > budget.number // 2:
            break
        text = longer
    return text


def _fitted(sample: NewsSample, wanted: Sequence[int], headline: str, names: str, budget: Budget) -> Context:
    """The context of the first of the wanted sentences, as many as fit when they stand together."""

    def around(*texts: str) -> str:
        # The separator between names may be a line break: it stays.
        return " ".join(part for part in (_joined(headline, *texts), names) if part)

    def together(count: int) -> str:
        return around(*(sample.sentences[index].text for index in sorted(wanted[:count])))

    count = len(wanted)
    if not budget.fits(together(count)):
        count = _most(count, together, budget)
    if count or not wanted:
        return Context(together(count), tuple(sorted(wanted[:count])))

    pieces = sample.sentences[wanted[0]].text.split()
    count = _most(len(pieces), lambda n: around(*pieces[:n]), budget)
    if count:
        return Context(around(*pieces[:count]), (wanted[0],))
    # A word of more tokens than the budget: a script without spaces, an address.
    word = pieces[0] if pieces else ""
    count = _most(len(word), lambda n: around(word[:n]), budget)
    return Context(around(word[:count]), (wanted[0],) if count else ())


def _most(most: int, text: Callable[[int], str], budget: Budget) -> int:
    """The largest number, up to ``most``, whose text fits the budget; 0 where none does.

    The text of the number that is returned was measured: it fits even where a longer text may have fewer
    tokens than a shorter one, as when letters complete a known word.
    """
    return bisect_right(range(1, most + 1), budget.number, key=lambda count: budget.length(text(count)))


def _joined(*texts: str) -> str:
    return fold_white_space(" ".join(texts))
