"""Causal attention within rows that lie end to end: one at a time, or in a variable-length kernel."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from inspect import signature

import torch
from torch import Tensor
from torch.nn import functional as F


def attend_rows(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: tuple[int, ...],
    starts: Tensor,
    dropout: float = 0.0,
    scaling: float | None = None,
) -> Tensor:
    """Causal attention within each row of a pack.

    ::

        rows       a a a a b b        a token of b sees b alone
        lengths    (4, 2)             starts    [0, 4, 6]

    Args:
        query: [1, H, T, d]; key and value [1, H / groups, T, d]: heads that share keys lie side by side.
        lengths: Tokens of each row, T together.
        starts: Their offsets, int32 [R + 1].
        dropout: Of the attention weights.
        scaling: Of the products; 1 / √d where None.

    Returns:
        [1, T, H, d].
    """
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (tensor.repeat_interleave(groups, dim=1) for tensor in (key, value))
    half = half_precision(query)
    kernel = kernel_for(query.device) if half and not dropout and query.shape[-1] % 8 == 0 else None
    if kernel is None:
        return _row_by_row(query, key, value, lengths, dropout, scaling)
    q, k, v = (tensor[0].transpose(0, 1).to(half) for tensor in (query, key, value))
    return kernel(q, k, v, starts, max(lengths), scaling or query.shape[-1] ** -0.5)[None]


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
"""Of queries, keys, values [T, H, d], offsets of the rows, the longest row and the scaling: [T, H, d]."""


def half_precision(query: Tensor) -> torch.dtype | None:
    """The type of half precision that attention runs in, if it does."""
    device = query.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else query.dtype
    return dtype if dtype in (torch.float16, torch.bfloat16) else None


def kernel_for(device: torch.device) -> Kernel | None:
    """A variable-length kernel for [T, H, d], where the device runs one."""
    if device.type != "cuda" or torch.version.hip or torch.cuda.get_device_capability(device) < (8, 0):
        return None
    return torch_kernel() or flash_kernel()


@cache
def torch_kernel() -> Kernel | None:
    """torch's own, whose arguments are these from 2.11 on."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    if not {"window_size", "scale"} <= set(signature(varlen_attn).parameters):
        return None  # older ones say is_causal, and scale by 1 / √d only

    def run(q: Tensor, k: Tensor, v: Tensor, starts: Tensor, longest: int, scaling: float) -> Tensor:
        output = varlen_attn(q, k, v, starts, starts, longest, longest, scale=scaling, window_size=(-1, 0))
        return output if isinstance(output, Tensor) else output[0]  # a tuple where more is asked for

    return run


@cache
def flash_kernel() -> Kernel | None:
    """That of the package flash-attn, from 2.0 on, where it is installed."""
    try:
        from flash_attn import flash_attn_varlen_func  # type: ignore[import-not-found]
    except ImportError:
        return None

    def run(q: Tensor, k: Tensor, v: Tensor, starts: Tensor, longest: int, scaling: float) -> Tensor:
        return flash_attn_varlen_func(
            q, k, v, starts, starts, longest, longest, softmax_scale=scaling, causal=True
        )

    return run
