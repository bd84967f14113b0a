"""Sentences that are wanted → the context of those that fit the budget, in the article's order."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache

from ealign_plugin.alignment.contexts.base import (
    DEFAULT_USUAL_CONTEXT,
    Budget,
    Context,
    context_strategy,
)
from ealign_plugin.alignment.prompts import fold_white_space
from ealign_plugin.alignment.selection import first_within, unrepeated
from ealign_plugin.news import NewsSample


def compose(
    sample: NewsSample,
    wanted: Iterable[int],
    budget: Budget,
    *,
    headline: str = "",
    names: Sequence[str] = (),
    once: bool = False,
) -> Context:
    """The context of the first wanted sentences that fit the budget, in the article's order.

    Args:
        sample: The sample.
        wanted: Indexes of sentences, the most wanted first; those of the usual context where there are none.
        budget: The longest context, headline and names included.
        headline: Stands in front, if it takes no more than half of the budget.
        names: Stand behind, as many as fit into half of the budget.
        once: Leave out a sentence that was read already, whatever its case, spacing and quotes.
    """
    wanted = tuple(wanted)
    if not wanted and (sample.sentences or budget.usual != DEFAULT_USUAL_CONTEXT):
        usual = usual_context(sample, budget)
        wanted, headline = usual.wanted, headline or usual.headline
    headline = fold_white_space(headline)
    shown = _within_half(headline, budget)
    listed = _first_names(names, budget, budget.number // 2)
    kept, _ = first_within(
        unrepeated(wanted, _text_of(sample)) if once else wanted,
        budget.number - _size(budget, shown, listed),
        lambda index: budget.length(sample.sentences[index].text),
    )
    made = _fitted(sample, kept, shown, listed, budget)
    return replace(made, wanted=wanted, headline=headline)


def supplement(
    sample: NewsSample, budget: Budget, sentences: Iterable[int], names: Sequence[str] = ()
) -> Context:
    """The usual context with further sentences and names in it; a sentence that stands twice is read once.

    ::

        budget     |-------- usual part --------|------------------ rest -------------------|
        is read    headline, usual context …     sentences …            names (half of it)
                   … and more of the usual context in what all leave

    Args:
        sample: The sample.
        budget: Of the whole; it says which context is the usual one, and which part is its own. A headline
            stays that the usual context alone would show, also where it takes more than this part.
        sentences: Indexes of the sentences to add, the most wanted first, until one does not fit.
        names: Names to list, the most wanted first.
    """
    budget = replace(budget, length=cache(budget.length))
    text = _text_of(sample)

    def first(indexes: Iterable[int], room: int, at_least_one: bool) -> tuple[list[int], int]:
        return first_within(
            indexes, room, lambda index: budget.length(text(index)), at_least_one=at_least_one
        )

    usual = usual_context(sample, budget)
    shown = _within_half(fold_white_space(usual.headline), budget)
    in_front = _size(budget, shown)
    part = max(budget.usual_part, in_front)
    listed = _first_names(names, budget, (budget.number - part) // 2)
    least, unused = first(unrepeated(usual.wanted, text), part - in_front, False)
    left = budget.number - _size(budget, shown, listed) - (part - in_front - unused)
    added, left = first(unrepeated(sentences, text, least), left, not least)
    kept = least + added
    more, _ = first(unrepeated(usual.wanted, text, kept), left, not kept)
    return _fitted(sample, kept + more, shown, listed, budget)


def usual_context(sample: NewsSample, budget: Budget) -> Context:
    """What would be read of the sample without any selection, with its wanted sentences."""
    # The usual context's own fallback must not be itself.
    alone = replace(budget, usual=DEFAULT_USUAL_CONTEXT)
    made = context_strategy(budget.usual).make(sample, alone, None)
    return made if made.wanted else replace(made, wanted=made.sentences)


def _text_of(sample: NewsSample) -> Callable[[int], str]:
    return lambda index: sample.sentences[index].text


def _size(budget: Budget, *texts: str) -> int:
    together = " ".join(filter(None, texts))
    return budget.length(together) if together else 0


def _within_half(headline: str, budget: Budget) -> str:
    """The headline, if it takes no more than half of the budget."""
    return headline if budget.length(headline) <= budget.number // 2 else ""


def _first_names(names: Sequence[str], budget: Budget, room: int) -> str:
    """The list of the first names that fit so much of the budget; empty where none does."""
    text = ""
    for count in range(1, len(names) + 1):
        longer = budget.list_names(names[:count])
        if budget.length(longer) > room:
            break
        text = longer
    return text


def _fitted(sample: NewsSample, wanted: Sequence[int], headline: str, names: str, budget: Budget) -> Context:
    """The context of the first of the wanted sentences, as many as fit when they stand together."""

    def around(*texts: str) -> str:
        # The separator between names may be a line break: it stays.
        return " ".join(part for part in (joined(headline, *texts), names) if part)

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


def joined(*texts: str) -> str:
    """The texts in a row, white space folded."""
    return fold_white_space(" ".join(texts))
