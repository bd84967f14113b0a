"""Both passes over the photos of a batch, written into their records."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ealign_plugin.alignment.contexts import Context
from ealign_plugin.inference.journal import Record
from ealign_plugin.inference.records import add_caption, add_first_pass
from ealign_plugin.inference.two_pass import FirstPass, TwoPasses
from ealign_plugin.news import NewsSample


def write_first_pass(
    passes: TwoPasses, features: Tensor, samples: Sequence[NewsSample], records: Sequence[Record]
) -> list[FirstPass]:
    """Run pass 1 on photos of these features [B, P, V], and add what it gives to the records."""
    first = passes.select(features, samples)
    for record, one in zip(records, first, strict=True):
        add_first_pass(record, one)
    return first


def write_strategy(
    passes: TwoPasses,
    features: Tensor,
    samples: Sequence[NewsSample],
    strategy: str,
    first: Sequence[FirstPass],
    records: Sequence[Record],
) -> None:
    """Caption the photos in the context that a strategy makes of what pass 1 gave."""
    contexts = [passes.context(sample, strategy, one) for sample, one in zip(samples, first, strict=True)]
    write_contexts(passes, features, samples, strategy, contexts, records)


def write_contexts(
    passes: TwoPasses,
    features: Tensor,
    samples: Sequence[NewsSample],
    name: str,
    contexts: Sequence[Context],
    records: Sequence[Record],
) -> None:
    """Caption the photos in these contexts, under the name of a row."""
    captions = passes.captions(features, [context.text for context in contexts])
    for record, sample, context, caption in zip(records, samples, contexts, captions, strict=True):
        add_caption(record, name, passes.read(sample, context), context, caption)
