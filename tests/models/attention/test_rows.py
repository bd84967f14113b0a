"""Attention within rows that lie end to end: by loops, and by a kernel where a GPU has one."""

import sys
from itertools import pairwise
from types import ModuleType
from typing import Any

import pytest
import torch

from ealign_plugin.models.attention import rows
from tests.models.attention.factories import UNLIKE, batch_of, losses_and_gradients


def reference(q: Any, k: Any, v: Any, starts: torch.Tensor, longest: int, scaling: float) -> torch.Tensor:
    """Stands in for a GPU's kernel: [T, H, d] and offsets, by softmax of each row's products."""
    bounds = starts.tolist()
    assert starts.dtype == torch.int32 and longest == max(b - a for a, b in pairwise(bounds))
    rows = []
    for a, b in pairwise(bounds):
        weights = torch.einsum("qhd,khd->hqk", q[a:b], k[a:b]) * scaling
        weights = weights.masked_fill(torch.ones(b - a, b - a).triu(1).bool(), -torch.inf)
        rows.append(torch.einsum("hqk,khd->qhd", weights.softmax(-1), v[a:b]))
    return torch.cat(rows)


def test_a_variable_length_kernel_takes_the_place_of_the_rows(models, monkeypatch):
    samples = batch_of(UNLIKE)
    wanted = losses_and_gradients(models["packed"], samples)
    calls = []
    monkeypatch.setattr(rows, "half_precision", lambda query: query.dtype)
    monkeypatch.setattr(rows, "kernel_for", lambda device: lambda *args: calls.append(1) or reference(*args))
    found = losses_and_gradients(models["packed"], samples)
    assert len(calls) == 2  # layers
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def flash_attn_varlen_func(
    q: Any,
    k: Any,
    v: Any,
    cu_seqlens_q: Any,
    cu_seqlens_k: Any,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
) -> torch.Tensor:
    """The arguments of flash_attn's function of this name."""
    assert cu_seqlens_q is cu_seqlens_k and max_seqlen_q == max_seqlen_k and causal and not dropout_p
    return reference(q, k, v, cu_seqlens_q, max_seqlen_q, softmax_scale or 0)


def varlen_attn(
    query: Any,
    key: Any,
    value: Any,
    cu_seq_q: Any,
    cu_seq_k: Any,
    max_q: int,
    max_k: int,
    *,
    return_aux: Any = None,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
) -> torch.Tensor:
    """The arguments of torch's function of this name, from 2.11 on."""
    assert cu_seq_q is cu_seq_k and max_q == max_k and window_size == (-1, 0)
    return reference(query, key, value, cu_seq_q, max_q, scale or 0)


@pytest.mark.parametrize(
    ("module", "function", "kernel"),
    [
        ("flash_attn", flash_attn_varlen_func, rows.flash_kernel),
        ("torch.nn.attention.varlen", varlen_attn, rows.torch_kernel),
    ],
)
def test_kernels_are_called_by_their_own_argument_names(monkeypatch, module, function, kernel):
    stand_in = ModuleType(module)
    setattr(stand_in, function.__name__, function)
    monkeypatch.setitem(sys.modules, module, stand_in)
    kernel.cache_clear()
    q, k, v = torch.randn(3, 9, 2, 8)
    starts = torch.tensor([0, 4, 9], dtype=torch.int32)
    found = kernel()(q, k, v, starts, 5, 0.3)
    kernel.cache_clear()
    torch.testing.assert_close(found, reference(q, k, v, starts, 5, 0.3))


def test_torch_s_kernel_takes_such_a_call():
    """Its shapes only: it runs on GPUs."""
    rows.torch_kernel.cache_clear()
    kernel = rows.torch_kernel()
    if kernel is None:
        pytest.skip("this torch has no such kernel")
    q, k, v = torch.empty(3, 9, 2, 8, device="meta", dtype=torch.bfloat16)
    starts = torch.empty(3, device="meta", dtype=torch.int32)
    assert kernel(q, k, v, starts, 5, 0.3).shape == (9, 2, 8)


def test_half_precision_is_known_from_the_tensor_or_from_autocast():
    query = torch.zeros(1)
    assert rows.half_precision(query) is None
    assert rows.half_precision(query.bfloat16()) == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert rows.half_precision(query) == torch.bfloat16
    assert rows.kernel_for(query.device) is None
