"""How long captions are and how varied."""

import pytest

from ealign_plugin.errors import UserError
from ealign_plugin.metrics.statistics import caption_statistics


def test_statistics_count_words_without_punctuation():
    statistics = caption_statistics(["Ana, Ana — and Bo.", "", "Oslo"])
    assert statistics == {"words": 5 / 3, "type_token_ratio": pytest.approx((3 / 4 + 0 + 1) / 3)}


def test_statistics_of_nothing_are_refused():
    with pytest.raises(UserError, match="no captions"):
        caption_statistics([])
