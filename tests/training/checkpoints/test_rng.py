"""Random generators go on where they stood."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch

from ealign_plugin.errors import UserError
from ealign_plugin.training.checkpoints.rng import pack_rng, unpack_rng


def test_random_generators_go_on_where_they_stood():
    def draw():
        return torch.rand(3).tolist(), random.random(), random.gauss(0, 1), np.random.rand(3).tolist()

    random.gauss(0, 1)  # leaves a second draw behind, which is a part of the state
    packed = json.loads(json.dumps(pack_rng()))
    expected = draw()
    draw()
    unpack_rng(packed)
    assert draw() == expected


@pytest.mark.parametrize(
    "broken", [{}, {"torch": "AAAA"}, {"python": [3, [1], None]}, {"numpy": ["X", [], 0]}]
)
def test_random_states_that_are_none_are_refused(broken):
    with pytest.raises(UserError, match="random states cannot be read"):
        unpack_rng({**pack_rng(), **broken} if broken else {})
