"""Article → context: the part of an article that the model reads before it answers.

Strategies (EAMA, arXiv 2402.19404; the baselines are Transform and Tell's and ours):

====================  =============================================================================
``none``              nothing
``head``              the first sentences
``full``              the whole article
``around_image``      the headline, the first paragraph, then paragraphs before and after the photo in
                      turn, the nearest first (Transform and Tell, arXiv 2004.08070); ``head`` where the
                      photo's place is unknown
``refined``           the selected sentences (v1 of the paper)
``supplemented``      the head, and the selected sentences and names (v5)
``oracle_sentences``  the sentences that the reference caption would select: an upper bound
``oracle_entities``   the head, and the names that the reference caption would select: the same
``oracle``            these sentences and names
====================  =============================================================================

Every context keeps the article's order and its budget, and never cuts a sentence unless that sentence
alone exceeds the budget (what the names or the headline leave of it). Where nothing is selected, each
falls back to ``head``.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

from ealign_plugin.alignment.selection import Selection, count_words, first_within, oracle, unrepeated
from ealign_plugin.errors import UserError
from ealign_plugin.news import NewsSample

STRATEGIES = (
    "none",
    "head",
    "full",
    "around_image",
    "refined",
    "supplemented",
    "oracle",
    "oracle_sentences",
    "oracle_entities",
)


NEED_SELECTION = frozenset({"refined", "supplemented"})


ORACLES = {"oracle": {}, "oracle_sentences": {"entities": False}, "oracle_entities": {"sentences": False}}


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
    length: Callable[[str], int] = count_words,
    once: bool = False,
) -> Context:
    """Make the context of one sample.

    Args:
        sample: An annotated sample.
        strategy: One of `STRATEGIES`.
        words: Budget, names and headline included, in words or in what `length` counts; at least 1;
            ``full`` and ``none`` ignore it. Names or headline take half of it at most: names that do not
            fit are left out, and so is a headline.
        selection: What pass 1 chose; needed by ``refined`` and ``supplemented``.
        names_label: What stands before the selected names.
        separator: What stands between them.
        length: Measures a text; words (split at white space) by default. For a budget of tokens:
            ``lambda text: len(tokenizer(text, add_special_tokens=False).input_ids)``. The finished context
            is measured whole, so that its tokens are within the budget even where a joint costs one.
        once: Leave out a sentence that was read already (see `unrepeated`).

    Raises:
        UserError: an unknown strategy, a budget below 1, or a selection is missing.
    """
    check_strategy(strategy)

    def text(index: int) -> str:
        return sample.sentences[index].text

    def size(index: int) -> int:
        return length(text(index))

    everything: Sequence[int] = range(len(sample.sentences))
    if strategy == "none":
        return Context("")
    if strategy == "full":
        read = tuple(unrepeated(everything, text) if once else everything)
        return Context(_joined(*map(text, read)), read)
    if words < 1:
        raise UserError(f"context {strategy!r}: a budget of at least 1 word was expected, found {words}")
    if strategy in ORACLES:
        selection = oracle(sample, **ORACLES[strategy])
    elif strategy not in NEED_SELECTION:
        selection = None
    elif selection is None:
        raise UserError(f"context {strategy!r} needs a selection from pass 1, none was given")

    headline, names = "", ""
    first: Iterable[int] = everything
    if selection is not None:
        first = selection.sentences
        if strategy != "refined":
            names = _names(selection.entities, words // 2, names_label, separator, length)
    elif strategy == "around_image" and sample.image_position is not None:
        first = _around(sample, sample.image_position)
        headline = _joined(sample.headline)
        if length(headline) > words // 2:
            headline = ""
    extra = headline or names
    kept, left = first_within(
        unrepeated(first, text) if once else first, words - (length(extra) if extra else 0), size
    )
    if strategy == "supplemented" or not kept:
        taken = set(kept)
        rest = (index for index in everything if index not in taken)
        kept += first_within(
            unrepeated(rest, text, kept) if once else rest, left, size, at_least_one=not kept
        )[0]
    return _fitted(sample, kept, headline, names, words, length)


def check_strategy(strategy: str) -> str:
    """The strategy itself.

    Raises:
        UserError: it is none of `STRATEGIES`.
    """
    if strategy not in STRATEGIES:
        raise UserError(f"context strategy {strategy!r} is unknown; choose from {', '.join(STRATEGIES)}")
    return strategy


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


def _names(
    names: Sequence[str], budget: int, label: str, separator: str, length: Callable[[str], int]
) -> str:
    """The label and the first names that fit the budget; empty where none does."""
    text = ""
    for count in range(1, len(names) + 1):
        longer = f"{label.strip()} {separator.join(names[:count])}.".lstrip()
        if length(longer) > budget:
            break
        text = longer
    return text


def _fitted(
    sample: NewsSample,
    wanted: Sequence[int],
    headline: str,
    names: str,
    budget: int,
    length: Callable[[str], int],
) -> Context:
    """The context of the first of the wanted sentences, as many as fit when they stand together."""

    def around(*texts: str) -> str:
        # The separator between names may be a line break: it stays.
        return " ".join(part for part in (_joined(headline, *texts), names) if part)

    def together(count: int) -> str:
        return around(*(sample.sentences[index].text for index in sorted(wanted[:count])))

    count = len(wanted)
    if length(together(count)) > budget:
        count = _most(count, together, budget, length)
    if count or not wanted:
        return Context(together(count), tuple(sorted(wanted[:count])))

    pieces = sample.sentences[wanted[0]].text.split()
    count = _most(len(pieces), lambda n: around(*pieces[:n]), budget, length)
    if count:
        return Context(around(*pieces[:count]), (wanted[0],))
    # A word of more tokens than the budget: a script without spaces, an address.
    count = _most(len(pieces[0]), lambda n: around(pieces[0][:n]), budget, length)
    return Context(around(pieces[0][:count]), (wanted[0],) if count else ())


def _most(most: int, text: Callable[[int], str], budget: int, length: Callable[[str], int]) -> int:
    """The largest number, up to ``most``, whose text fits the budget; 0 where none does.

    The text of the number that is returned was measured: it fits even where a longer text may have fewer
    tokens than a shorter one, as when letters complete a known word.
    """
    return bisect_right(range(1, most + 1), budget, key=lambda count: length(text(count)))


def _joined(*texts: str) -> str:
    return " ".join(" ".join(texts).split())
