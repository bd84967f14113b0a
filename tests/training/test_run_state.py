"""How far a run is, and back from JSON."""

from __future__ import annotations

import json

import pytest

from ealign_plugin.training.run_state import RunState


def state() -> RunState:
    state = RunState(iters=4, ended=False, best_iters=2, best_metric=0.5)
    state.window.add({"loss": 1.0})
    state.inner_epoch.add({"loss": 3.0})
    return state


def test_a_state_comes_back():
    restored = RunState()
    restored.restore(4, json.loads(json.dumps(state().to_json())), same_run=True)
    assert restored.to_json() == state().to_json() and restored.iters == 4


def test_of_another_run_the_best_checkpoint_does_not_count():
    restored = RunState()
    restored.restore(4, state().to_json(), same_run=False)
    assert (restored.best_iters, restored.iters) == (0, 4)


def test_a_new_run_has_no_best_metric():
    assert RunState().to_json()["best_metric"] is None
    restored = RunState()
    restored.restore(0, RunState().to_json(), same_run=True)
    assert restored.to_json() == RunState().to_json()


@pytest.mark.parametrize(
    ("iters", "metrics", "best"),
    [
        ((1, 2, 3), (0.1, 0.3, 0.2), 2),
        ((1, 2, 3), (0.0, 0.0, 0.0), 1),  # 0 can be the best; of equal ones the first
        ((1, 2, 3), (-3.0, -1.0, -2.0), 2),
        ((0, 1), (0.9, 0.1), 1),  # before the first iteration there is nothing to go back to
    ],
)
def test_the_best_validation_is_the_highest_one(iters, metrics, best):
    state = RunState()
    for state.iters, metric in zip(iters, metrics, strict=True):
        state.note_validation(metric)
    assert state.best_iters == best
