"""What the model read decides, not what is true."""

from __future__ import annotations

import pytest
from unsupported_names import unsupported_names

from ealign_plugin.metrics import METRICS, CaptionSet
from ealign_plugin.news import Entity


def captions(*contexts: str) -> CaptionSet:
    """One caption with two names for each context."""
    names = (Entity("Ana Ruiz", "PERSON", 0), Entity("Oslo", "GPE", 12))
    return CaptionSet(
        references=["Ana Ruiz in Oslo."] * len(contexts),
        captions=["Ana Ruiz in Oslo."] * len(contexts),
        reference_entities=[names] * len(contexts),
        caption_entities=[names] * len(contexts),
        contexts=contexts,
    )


def test_names_are_looked_up_in_what_was_read():
    value = unsupported_names(captions("Ana Ruiz came to Oslo.", "Ana Ruiz stayed at home."))
    assert value == pytest.approx(1 / 4)


def test_without_contexts_the_figure_is_undefined():
    assert unsupported_names(captions()) is None


def test_every_evaluation_measures_it():
    assert METRICS["unsupported_names"].measure(captions("Oslo")) == {"unsupported_names": 0.5}
