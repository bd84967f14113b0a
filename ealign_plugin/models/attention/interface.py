"""The place where our attention meets transformers'."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

ATTENTION = "ealign_prefix"


Attend = Callable[[nn.Module, Tensor, Tensor, Tensor, float], Tensor]


def can_share(language_model: Any) -> bool:
    """Whether its prompts can share a prefix: a decoder whose attention transformers (4.51 on) replaces."""
    import transformers

    if language_model.config.is_encoder_decoder or not hasattr(transformers, "AttentionInterface"):
        return False
    return bool(language_model.is_backend_compatible())


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    *,
    attend: Attend,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """As transformers calls it from a layer; ``attend`` comes with each call of the decoder."""
    return attend(module, query, key, value, scaling or query.shape[-1] ** -0.5), None


@contextmanager
def attending(decoder: Any) -> Iterator[None]:
    """Inside, the decoder's layers call `attention`; they look its name up in every forward."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, attention)
    before = decoder.config._attn_implementation
    decoder.config._attn_implementation = ATTENTION
    try:
        yield
    finally:
        decoder.config._attn_implementation = before


def no_mask(like: Tensor) -> Tensor:
    """transformers hands masks of four dimensions on as they are, and would build one without."""
    return like.new_zeros(1, 1, 1, 1)


Kept = dict[int, tuple[Tensor, Tensor]]
"""Keys and values of the prefix [1, H / groups, P, d] by layer."""
