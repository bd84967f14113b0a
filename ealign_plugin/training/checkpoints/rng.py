"""The states of random generators as JSON values."""

from __future__ import annotations

import base64
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ealign_plugin.errors import UserError
from ealign_plugin.training.checkpoints.manifest import STATE


def pack_rng() -> dict[str, Any]:
    """The states of all random generators of this process as JSON values: Python's, NumPy's, torch's, and
    that of the current GPU where CUDA is in use. `unpack_rng` is the inverse."""
    version, words, gauss = random.getstate()
    legacy: Any = np.random.get_state()
    kind, array, position, has_gauss, cached = legacy
    packed: dict[str, Any] = {
        "torch": _encoded(torch.get_rng_state()),
        "python": [version, list(words), gauss],
        "numpy": [kind, array.tolist(), position, has_gauss, cached],
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        packed["cuda"] = _encoded(torch.cuda.get_rng_state())
    return packed


def unpack_rng(packed: Mapping[str, Any]) -> None:
    """Set the random generators of this process; that of the GPU where both processes had one.

    Args:
        packed: What `pack_rng` returned.

    Raises:
        UserError: these are no states of random generators.
    """
    try:
        version, words, gauss = packed["python"]
        random.setstate((version, tuple(words), gauss))
        kind, array, *rest = packed["numpy"]
        np.random.set_state((kind, np.array(array, dtype=np.uint32), *rest))
        torch.set_rng_state(_decoded(packed["torch"]))
        if "cuda" in packed and torch.cuda.is_available():
            torch.cuda.set_rng_state(_decoded(packed["cuda"]))
    except (KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise UserError(
            f"checkpoint, {STATE}: the random states cannot be read ({error}); use another checkpoint"
        ) from None


def _encoded(state: Tensor) -> str:
    return base64.b64encode(state.numpy().tobytes()).decode()


def _decoded(text: str) -> Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text, validate=True)), dtype=torch.uint8)
