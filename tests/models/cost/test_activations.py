"""What a forward keeps for the backward, beside what autograd keeps."""

from typing import Any

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from ealign_plugin.models import InstructBlip
from ealign_plugin.models.cost.activations import activations
from ealign_plugin.models.cost.shapes import Reading, on_meta
from tests.models.cost.factories import ROWS, batch, reading


def kept(model: Any) -> int:
    """Bytes that autograd saves, each piece of memory once, without the parameters."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    pieces: dict[int, tuple[int, torch.Tensor]] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            pieces[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that no address comes twice
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        model(batch(model))
    return sum(size for size, _ in pieces.values())


def test_activations_are_what_autograd_keeps(pair):
    real, meta = pair
    assert activations(meta, reading(real), size=4) == pytest.approx(kept(real) / ROWS, rel=0.2)


def test_checkpointing_keeps_less(shape):
    meta = on_meta(InstructBlip, shape, trainable="all")
    read = Reading(patches=17, queries=8, question=10, prompt=400, target=20)
    whole = activations(meta, read, size=4)
    part = activations(meta, read, size=4, gradient_checkpointing=True)
    eager = activations(meta, read, size=4, eager=True)
    assert part < 0.6 * whole
    assert eager - whole == 3 * 4 * 2 * 4 * 428**2  # layers, bytes, before and after softmax, heads
