"""A batch's examples end to end through a decoder, without padding and without seeing each other.

::

    padded [2, 7]    i i p p p t t        packed [1, 11]   i i p p p t t i i p t
                     i i p t . . .        positions        0 1 2 3 4 5 6 0 1 2 3

``i`` is an image token, ``p`` of the prompt, ``t`` of the target. All but attention works on a token at a
time, so a pack costs what its tokens cost. Attention runs once a row on a CPU (a mask of the whole pack would
cost the square of its length), and in one variable-length kernel on a GPU. It reaches the decoder's layers
through transformers' `AttentionInterface`, under the name of `ATTENTION`; calls that are not packed go on to
transformers' own SDPA, so the same model also writes with padding.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cache
from inspect import signature
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ealign_plugin.models.batching import Tokens

ATTENTION = "ealign_packed"


log = logging.getLogger(__name__)


class Pack(NamedTuple):
    """Rows end to end: ``embeds`` [1, T, D], ``positions`` long [1, T], and the ``lengths`` of the rows.

    The hidden states at ``places`` long [N] predict the target tokens ``labels`` long [N] of the rows
    ``owner`` long [N].
    """

    embeds: Tensor
    positions: Tensor
    lengths: tuple[int, ...]
    places: Tensor
    labels: Tensor
    owner: Tensor


def bins(lengths: Sequence[int], most: int | None) -> list[list[int]]:
    """Row numbers of each forward of at most so many tokens; a longer row is alone.

    >>> bins([5, 4, 3, 9], most=8)
    [[0, 2], [1], [3]]
    """
    if most is None:
        return [list(range(len(lengths)))]
    groups: list[list[int]] = []
    totals: list[int] = []
    for index, length in enumerate(lengths):
        place = next((n for n, total in enumerate(totals) if total + length <= most), None)
        if place is None:
            groups.append([index])
            totals.append(length)
        else:
            groups[place].append(index)
            totals[place] += length
    return groups


def pack(before: Tensor, images: Tensor, texts: Tensor, rows: Sequence[Tokens]) -> Pack:
    """Lay rows end to end.

    Args:
        before: Embeddings in front of the image tokens of every row [k, D].
        images: Image tokens of each row [R, Q, D].
        texts: Embeddings of the prompts and targets of all rows, one after the other [N, D].
        rows: Their tokens.
    """
    start = len(before) + images.shape[1]
    lengths = tuple(start + len(row) for row in rows)
    device = texts.device
    pieces: list[Tensor] = []
    places: list[int] = []
    owner: list[int] = []
    offset = 0
    for number, (row, image, text) in enumerate(
        zip(rows, images, texts.split([len(row) for row in rows]), strict=True)
    ):
        pieces += [before, image, text]
        offset += lengths[number]
        places += range(offset - len(row.target) - 1, offset - 1)
        owner += [number] * len(row.target)
    labels = [token for row in rows for token in row.target]
    return Pack(
        torch.cat(pieces)[None],
        torch.cat([torch.arange(length, device=device) for length in lengths])[None],
        lengths,
        *(torch.tensor(part, dtype=torch.long, device=device) for part in (places, labels, owner)),
    )


def decode(decoder: Callable[..., Any], packed: Pack) -> Tensor:
    """Last hidden states [T, D] of a pack. The decoder was built with ``attn_implementation=ATTENTION``."""
    lengths = torch.tensor((0, *packed.lengths), device=packed.embeds.device)
    return decoder(
        inputs_embeds=packed.embeds,
        position_ids=packed.positions,
        # transformers hands masks of four dimensions on as they are, and would build one [T, T] without.
        attention_mask=packed.embeds.new_zeros(1, 1, 1, 1),
        use_cache=False,
        row_lengths=packed.lengths,
        row_starts=lengths.cumsum(0, dtype=torch.int32),
    ).last_hidden_state[0]


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    row_lengths: tuple[int, ...] | None = None,
    row_starts: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Causal attention within each row of a pack, as transformers calls it from a layer.

    Args:
        module: The layer's attention; its ``num_key_value_groups`` query heads share a key head.
        query: [1, H, T, d]; key and value [1, H / groups, T, d].
        attention_mask: Not read for a pack.
        dropout: Of the attention weights.
        scaling: Of the products; 1 / √d where None.
        row_lengths: Tokens of each row; None: the call is no pack.
        row_starts: Their offsets, int32 [R + 1].

    Returns:
        [1, T, H, d], and None for the weights.

    Raises:
        RuntimeError: the model's layers keep the row lengths to themselves.
    """
    if row_lengths is None:
        from transformers import AttentionInterface

        if attention_mask is not None and attention_mask.shape[-1] < key.shape[2]:
            raise RuntimeError(
                f"{type(module).__name__} does not hand row_lengths on; set model.batching: groups"
            )
        sdpa: Callable[..., Any] = AttentionInterface()["sdpa"]
        return sdpa(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)
    groups = getattr(module, "num_key_value_groups", 1)
    if groups > 1:
        key, value = (tensor.repeat_interleave(groups, dim=1) for tensor in (key, value))
    half = _half(query)
    kernel = _kernel_for(query.device) if half and not dropout and query.shape[-1] % 8 == 0 else None
    if kernel is None:
        return _row_by_row(query, key, value, row_lengths, dropout, scaling), None
    q, k, v = (tensor[0].transpose(0, 1).to(half) for tensor in (query, key, value))
    assert row_starts is not None  # `decode` hands both on
    return kernel(q, k, v, row_starts, max(row_lengths), scaling or query.shape[-1] ** -0.5)[None], None


@torch.compiler.disable  # one graph for each list of lengths would be compiled anew for every batch
def _row_by_row(
    query: Tensor, key: Tensor, value: Tensor, lengths: tuple[int, ...], dropout: float, scaling: float | None
) -> Tensor:
    # The gradient of a split is one copy; that of a slice would be as long as the pack, for each row.
    outputs = [
        F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True, scale=scaling)
        for q, k, v in zip(*(tensor.split(lengths, dim=2) for tensor in (query, key, value)), strict=True)
    ]
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous()


Kernel = Callable[[Tensor, Tensor, Tensor, Tensor, int, float], Tensor]


def _half(query: Tensor) -> torch.dtype | None:
    """The type of half precision that attention runs in, if it does."""
    device = query.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else query.dtype
    return dtype if dtype in (torch.float16, torch.bfloat16) else None


def _kernel_for(device: torch.device) -> Kernel | None:
    """A variable-length kernel for [T, H, d], where the device runs one."""
    if device.type != "cuda" or torch.version.hip or torch.cuda.get_device_capability(device) < (8, 0):
        return None
    return _torch_kernel() or _flash_kernel()


@cache
def _torch_kernel() -> Kernel | None:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    if not {"window_size", "scale"} <= set(signature(varlen_attn).parameters):
        return None  # older ones say is_causal, and scale by 1 / √d only

    def run(q: Tensor, k: Tensor, v: Tensor, starts: Tensor, longest: int, scaling: float) -> Tensor:
        return varlen_attn(q, k, v, starts, starts, longest, longest, scale=scaling, window_size=(-1, 0))

    return run


@cache
def _flash_kernel() -> Kernel | None:
    try:
        from flash_attn import flash_attn_varlen_func  # type: ignore[import-not-found]
    except ImportError:
        return None

    def run(q: Tensor, k: Tensor, v: Tensor, starts: Tensor, longest: int, scaling: float) -> Tensor:
        return flash_attn_varlen_func(
            q, k, v, starts, starts, longest, longest, softmax_scale=scaling, causal=True
        )

    return run


@cache
def register() -> bool:
    """Make `attention` known to transformers; False where its version has no place for it (before 4.51)."""
    try:
        from transformers import AttentionInterface
    except ImportError:
        log.warning("model.batching: packed needs transformers 4.51 or later; batching in groups instead")
        return False
    AttentionInterface.register(ATTENTION, attention)
    try:
        from transformers import AttentionMaskInterface
    except ImportError:  # before 4.53, where layers get a mask whatever the name
        return True
    AttentionMaskInterface.register(ATTENTION, AttentionMaskInterface()["sdpa"])
    return True
