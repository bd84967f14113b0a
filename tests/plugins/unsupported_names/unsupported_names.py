"""A metric: which share of the names in the captions stands in nothing that the model read."""

from __future__ import annotations

from ealign_plugin.metrics import CaptionSet, register_metric


@register_metric(
    "unsupported_names",
    heading="unsupported",
    picks_best=False,  # fewer are better, and run.agg_metric takes what is highest
    note="unsupported: share of the captions' names that do not stand in what pass 2 read.",
)
def unsupported_names(captions: CaptionSet) -> float | None:
    """Names of the captions that their contexts do not hold, over all; None where there are no names."""
    if not captions.contexts:
        return None
    held = [
        entity.text in context
        for entities, context in zip(captions.caption_entities, captions.contexts, strict=True)
        for entity in entities
    ]
    return 1 - sum(held) / len(held) if held else None
