"""The same weights in models that run in each of the three ways."""

import pytest

from ealign_plugin.models import InstructBlip
from tests.models.attention.factories import MODES, seeded


@pytest.fixture(scope="module")
def models() -> dict[str, InstructBlip]:
    """The same weights, run in the three ways."""
    return {mode: seeded(batching=mode) for mode in MODES}
