"""Statistics of captions alone: how long they are and how varied their words."""

from __future__ import annotations

from collections.abc import Sequence

from ealign_plugin.errors import UserError
from ealign_plugin.metrics.captions import PUNCTUATION


def caption_statistics(captions: Sequence[str]) -> dict[str, float]:
    """Mean words a caption, and mean type-token ratio (different words / words; 0 for an empty caption).

    Words are split at whitespace after punctuation is removed. (Transform and Tell counts words so, but
    takes the ratio over NLTK's tokens, so its ratio differs slightly.)

    Raises:
        UserError: no captions.
    """
    if not captions:
        raise UserError("no captions to count words in: at least one is expected")
    words = [PUNCTUATION.sub("", caption).split() for caption in captions]
    return {
        "words": sum(map(len, words)) / len(words),
        "type_token_ratio": sum(len(set(item)) / len(item) for item in words if item) / len(words),
    }
