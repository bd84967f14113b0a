"""Micro models to be trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.factories import micro_batch, micro_model


@pytest.fixture
def new_model() -> Callable[[], Any]:
    """``new_model()``: a micro model of one's own; every call builds the same."""
    return micro_model


@pytest.fixture
def samples() -> dict[str, Any]:
    """Four examples of unlike length for it."""
    return micro_batch()
