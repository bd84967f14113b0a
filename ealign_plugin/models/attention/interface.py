"""The one file that meets transformers' attention (4.51 to 5): one function under one name.

`replace_attention` gives the attention of each layer of a language model, once, when it is built, a config of
its own whose attention is `NAME`. What such a layer does is said by the keyword arguments of the call of the
decoder, which transformers hands down to its layers::

    decoder(..., row_lengths=, row_starts=)    rows end to end, each sees itself     packed.py
    decoder(..., attend=)                      a prefix that many rows share         scoring.py, generation.py
    decoder(...)                               the attention that was asked for      sdpa, eager, flash ...

The decoder keeps its own config, so that transformers makes masks for the attention that was asked for.
Nothing is changed during a call, so any number of threads may use one model at the same time.

It relies on these of transformers' habits, each of which has a test in
``tests/models/attention/test_interface.py``:

- ``AttentionInterface.register``, and layers that look the name ``self.config._attn_implementation`` up;
- a layer's attention has ``config`` and ``layer_idx``, and its file the function ``eager_attention_forward``;
- keyword arguments that a decoder doesn't know reach the attention;
- a mask of four dimensions is handed on as it is.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from functools import cache
from typing import Any, cast

from torch import Tensor, nn

from ealign_plugin.models.attention.rows import attend_rows

NAME = "ealign"
"""Under which transformers knows `attention`."""

UNFIT = ("flex_attention",)
"""Attention beside which a decoder refuses a mask of four dimensions, so that no prefix can be shared."""

Attend = Callable[[nn.Module, Tensor, Tensor, Tensor, float], Tensor]
"""From a layer's attention, queries [B, H, T, d], keys and values [B, H / groups, S, d], and what products
are multiplied by, to [B, T, H, d]."""

LayerKeys = dict[int, tuple[Tensor, Tensor]]
"""By number of the layer: keys and values [B, H / groups, P, d] of what is shared."""


@cache
def register() -> bool:
    """Make `attention` known to transformers; False where its version has no place for it (before 4.51)."""
    try:
        from transformers import AttentionInterface
    except ImportError:
        return False
    AttentionInterface.register(NAME, attention)
    return True


def replace_attention(language_model: Any) -> bool:
    """Let the layers of a causal language model call `attention`; call it once, when the model is built.

    Args:
        language_model: Of transformers, with the attention that was asked for in its config.

    Returns:
        False where its attention cannot be replaced: it is an encoder-decoder, or of a kind or version of
        transformers without replaceable attention. The model is then unchanged.
    """
    config = language_model.config
    if config.is_encoder_decoder or not register() or not language_model.is_backend_compatible():
        return False
    asked_for = config._attn_implementation
    layers = attention_layers(language_model.get_decoder())
    if asked_for in UNFIT or len(layers) != config.num_hidden_layers:
        return False
    if asked_for == "eager" and not all(eager_attention(layer) for layer in layers):
        return False
    ours = copy.copy(layers[0].config)
    ours._attn_implementation = NAME
    for layer in layers:
        layer.config = ours
        layer.attention_asked_for = asked_for
    language_model.has_replaced_attention = True
    return True


def attention_layers(decoder: nn.Module) -> list[Any]:
    """The attention of each layer: the innermost modules that know the number of their layer."""
    numbered = [module for module in decoder.modules() if hasattr(module, "layer_idx")]
    return [
        module
        for module in numbered
        if hasattr(module, "config")
        and not any(hasattr(inner, "layer_idx") for inner in module.modules() if inner is not module)
    ]


def layer_number(module: nn.Module) -> int:
    """Which layer of the decoder this attention belongs to; transformers counts from 0."""
    return cast(int, module.layer_idx)  # torch cannot know the type of what a subclass adds


def eager_attention(layer: nn.Module) -> Callable[..., Any] | None:
    """transformers' plain attention, which stands in the file of each kind of model."""
    return getattr(sys.modules[type(layer).__module__], "eager_attention_forward", None)


def can_share(language_model: Any) -> bool:
    """Whether its prompts can share a prefix; see `replace_attention`."""
    return getattr(language_model, "has_replaced_attention", False)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    *,
    attend: Attend | None = None,
    row_lengths: tuple[int, ...] | None = None,
    row_starts: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """The attention of a layer, as transformers calls it.

    Args:
        module: The layer's attention.
        query: [B, H, T, d]; key and value [B, H / groups, S, d].
        attention_mask: Read where neither of the next is handed over.
        dropout: Of the attention weights.
        scaling: Of the products; 1 / √d where None.
        attend: Computes it.
        row_lengths: Tokens of each row of a pack; see `attend_rows`.
        row_starts: Their offsets, int32 [R + 1].
        kwargs: Others of transformers, for the attention that was asked for.

    Returns:
        [B, T, H, d], and the weights where transformers' attention returns them.

    Raises:
        RuntimeError: a layer between decoder and attention keeps the arguments to itself.
    """
    if attend is not None:
        return attend(module, query, key, value, scaling or query.shape[-1] ** -0.5), None
    if row_lengths is not None:
        assert row_starts is not None  # `decode` hands both on
        return attend_rows(query, key, value, row_lengths, row_starts, dropout, scaling), None
    if attention_mask is not None and attention_mask.ndim == 4 and attention_mask.shape[-1] < key.shape[2]:
        raise RuntimeError(
            f"{type(module).__name__} does not hand row_lengths on; set model.batching: groups"
        )
    asked_for = getattr(module, "attention_asked_for", "sdpa")
    forward = eager_attention(module) if asked_for == "eager" else _registered(asked_for)
    assert forward is not None  # `replace_attention` saw to it
    return forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)


def _registered(name: str) -> Callable[..., Any]:
    from transformers import AttentionInterface

    return AttentionInterface()[name]


def no_mask(like: Tensor) -> Tensor:
    """transformers hands masks of four dimensions on as they are, and would build one without."""
    return like.new_zeros(1, 1, 1, 1)
