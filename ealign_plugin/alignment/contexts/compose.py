"""Sentences that are wanted → the context of those that fit the budget, in the article's order."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence

from ealign_plugin.alignment.contexts.base import Budget, Context
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
