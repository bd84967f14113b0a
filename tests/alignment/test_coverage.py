"""What a strategy can put before the model is found by asking it."""

from __future__ import annotations

import pytest

from ealign_plugin.alignment.contexts import CONTEXTS, Budget, Context, register_context
from ealign_plugin.alignment.coverage import HEADLINE, MORE, NAMES, SENTENCES, parts_of, parts_of_all
from ealign_plugin.errors import UserError


@pytest.mark.parametrize("words", [8, 80, 600])
@pytest.mark.parametrize(
    ("strategy", "parts"),
    [
        ("none", set()),
        ("head", {SENTENCES}),
        ("refined", {SENTENCES}),
        ("full", {SENTENCES, MORE}),
        ("around_image", {SENTENCES, HEADLINE}),
        ("supplemented", {SENTENCES, NAMES}),
        ("oracle", {SENTENCES, NAMES}),
        ("oracle_sentences", {SENTENCES}),
    ],
)
def test_the_parts_of_each_strategy(strategy, parts, words):
    assert parts_of(strategy, Budget(words)) == parts


def test_a_strategy_of_another_package_is_asked_too():
    register_context("loud")(lambda sample, budget, selection: Context(sample.headline * budget.number))
    try:
        assert parts_of("loud", Budget(9, length=len)) == {HEADLINE, MORE}
    finally:
        CONTEXTS.unregister("loud")


def test_together_they_have_the_parts_of_each():
    assert parts_of_all(["none", "around_image", "oracle"], Budget(80)) == {SENTENCES, HEADLINE, NAMES}
    assert parts_of_all([], Budget(80)) == set()
    with pytest.raises(UserError, match="unknown context strategy 'haed'"):
        parts_of_all(["haed"], Budget(80))
