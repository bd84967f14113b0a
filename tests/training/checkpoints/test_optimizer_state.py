"""The optimiser's state belongs to the parameters that it was saved for."""

from __future__ import annotations

import json

import pytest
import torch

from ealign_plugin.errors import UserError
from tests.training.checkpoints.saving import (
    Net,
    make,
    save,
    train,
)


def test_a_checkpoint_of_another_model_is_refused(store):
    saved, model = save(store, 1), Net()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with pytest.raises(UserError, match="group 0 .* 3 parameters in the checkpoint, 8 now.*first.bias"):
        store.load(saved, model, torch.optim.AdamW(trained))
    matrices = [parameter for parameter in trained if parameter.ndim > 1]
    with pytest.raises(UserError, match="2 groups of the optimiser in the checkpoint, 1 now"):
        store.load(saved, model, torch.optim.AdamW(matrices))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tensors": {"first.weight/exp_avg": ["float32", [10**6, 10**6]]}}, "the files are smaller"),
        ({"tensors": {"first.weight/exp_avg": ["object", [5, 3]]}}, "no state of a checkpoint"),
        ({"tensors": {"frozen.weight/exp_avg": ["float32", [2, 2]]}}, "parameters that are not trained"),
        ({"tensors": {"last.bias/gone": ["float32", [1]]}}, "optimizer.safetensors: it cannot be read"),
        ({"tensors": {"last.bias/step": ["float32", [1]]}}, r"last.bias/step is \[\], \[1\] expected"),
        ({"groups": 3}, "no state of a checkpoint"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(store, change, message):
    trained = make()
    train(*trained, range(1))
    saved = save(store, 1, parts=trained)
    path = saved.folder / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=message):
        store.load(saved, *make(1))
