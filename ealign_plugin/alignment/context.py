"""Article → context: the part of an article that the model reads before it answers.

Strategies (EAMA, arXiv 2402.19404; the baselines are Transform and Tell's and ours):

=============  ====================================================================================
``none``       nothing
``head``       the first sentences
``full``       the whole article
``refined``    the selected sentences (v1 of the paper)
``supplemented``  the head, and the selected sentences and names (v5)
``oracle``     the sentences and names that the reference caption would select: an upper bound
=============  ====================================================================================

Every context keeps the article's order and its word budget, and never cuts a sentence unless that
sentence alone exceeds the budget (what the names leave of it). Where nothing is selected, each falls back
to ``head``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ealign_plugin.alignment.selection import Selection, oracle
from ealign_plugin.errors import UserError
from ealign_plugin.news import NewsSample

STRATEGIES = ("none", "head", "full", "refined", "supplemented", "oracle")
NEED_SELECTION = frozenset({"refined", "supplemented"})


@dataclass(frozen=True, slots=True)
class Context:
    """What the model reads: the text, and which of the article's sentences stand in it."""

    text: str
    sentences: tuple[int, ...] = ()


def build_context(
    sample: NewsSample,
    strategy: str,
    *,
    words: int,
    selection: Selection | None = None,
    names_label: str = "Names:",
    separator: str = "; ",
) -> Context:
    """Make the context of one sample.

    Args:
        sample: An annotated sample.
        strategy: One of `STRATEGIES`.
        words: Budget in words (split at white space), names included; at least 1; ``full`` and ``none``
            ignore it.
        selection: What pass 1 chose; needed by ``refined`` and ``supplemented``.
        names_label: What stands before the selected names.
        separator: What stands between them.

    Raises:
        UserError: an unknown strategy, a budget below 1, or a selection is missing.
    """
    check_strategy(strategy)
    everything = range(len(sample.sentences))
    if strategy == "none":
        return Context("")
    if strategy == "full":
        return _context(sample, everything)
    if words < 1:
        raise UserError(f"context {strategy!r}: a budget of at least 1 word was expected, found {words}")
    if strategy == "oracle":
        selection = oracle(sample)
    if strategy == "head":
        return _context(sample, _within(sample, everything, words), words)
    if selection is None:
        raise UserError(f"context {strategy!r} needs a selection from pass 1, none was given")
    if strategy == "refined":
        chosen = _within(sample, selection.sentences, words)
        return _context(sample, chosen or _within(sample, everything, words), words)

    names = _names(selection.entities, words // 2, names_label, separator)
    budget = words - len(names.split())
    chosen = _within(sample, selection.sentences, budget)
    if strategy == "supplemented" or not chosen:
        left = budget - sum(_length(sample, index) for index in chosen)
        rest = sorted({*everything} - {*chosen})
        chosen = sorted(chosen + _within(sample, rest, left, cut=not chosen))
    context = _context(sample, chosen, budget)
    return Context(f"{context.text} {names}".strip(), context.sentences)


def check_strategy(strategy: str) -> str:
    """The strategy itself.

    Raises:
        UserError: it is none of `STRATEGIES`.
    """
    if strategy not in STRATEGIES:
        raise UserError(f"context strategy {strategy!r} is unknown; choose from {', '.join(STRATEGIES)}")
    return strategy


def _within(sample: NewsSample, indexes: Iterable[int], words: int, *, cut: bool = True) -> list[int]:
    """The first of the sentences whose words fit the budget; at least one where it may be cut."""
    kept: list[int] = []
    for index in indexes:
        words -= _length(sample, index)
        if words < 0 and (kept or not cut):
            break
        kept.append(index)
    return kept


def _length(sample: NewsSample, index: int) -> int:
    return len(sample.sentences[index].text.split())


def _context(sample: NewsSample, indexes: Sequence[int], words: int | None = None) -> Context:
    text = " ".join(sample.sentences[index].text for index in indexes)
    return Context(" ".join(text.split()[:words]), tuple(indexes))


def _names(names: Sequence[str], words: int, label: str, separator: str) -> str:
    """The label and the first names that fit the budget; empty where none does."""
    text = ""
    for count in range(1, len(names) + 1):
        longer = f"{label} {separator.join(names[:count])}.".split()
        if len(longer) > words:
            break
        text = " ".join(longer)
    return text
