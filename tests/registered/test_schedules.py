"""The schedule as LAVIS's runners make and step it."""

from types import SimpleNamespace

import pytest
import torch
from lavis.common.registry import registry
from omegaconf import OmegaConf

from ealign_plugin.errors import UserError
from ealign_plugin.registered.schedules import CosineSchedule

PEAK, END, WARM_UP = 1e-3, 2e-5, 90


def make(**changes) -> CosineSchedule:
    optimizer = torch.optim.SGD([{"params": [torch.zeros(1)]}, {"params": [torch.zeros(1)], "lr_scale": 0.1}])
    values = {
        "max_epoch": 3,
        "iters_per_epoch": 1000,
        "min_lr": END,
        "init_lr": PEAK,
        "warmup_steps": WARM_UP,
        "decay_rate": None,  # LAVIS passes it to every schedule
    }
    return CosineSchedule(optimizer, **{**values, **changes})


@pytest.fixture
def configured(monkeypatch):
    """``configured(max_iters=..., ...)`` makes the run section that LAVIS's registry hands out."""

    def register(**run) -> None:
        configuration = SimpleNamespace(run_cfg=OmegaConf.create(run))
        monkeypatch.setitem(registry.mapping["state"], "configuration", configuration)

    return register


@pytest.mark.parametrize("inner", [1, 7, 40, 300, 1000, 5000])
def test_the_inner_epoch_does_not_matter(configured, inner):
    """Not where it is shorter than the warm-up, no divisor of the run, or longer than the run."""
    configured(max_iters=1000, iters_per_inner_epoch=inner)
    # LAVIS's RunnerIter rounds the number of inner epochs down.
    schedule = make(max_epoch=1000 // inner, iters_per_epoch=None)
    wanted = make(max_epoch=1, iters_per_epoch=1000)
    for iteration in range(0, 1000, 3):
        schedule.step(cur_epoch=iteration // inner, cur_step=iteration % inner)
        wanted.step(cur_epoch=0, cur_step=iteration)
        assert [group["lr"] for group in schedule.optimizer.param_groups] == [
            group["lr"] for group in wanted.optimizer.param_groups
        ]


def test_iterations_are_counted_by_epoch_and_step():
    schedule = make()
    schedule.step(cur_epoch=1, cur_step=234)
    whole, scaled = (group["lr"] for group in schedule.optimizer.param_groups)
    assert whole == schedule.lr_at(1234)
    assert scaled == pytest.approx(0.1 * whole)


def test_a_runner_by_epochs_is_refused_with_what_is_missing(configured):
    configured(max_epoch=10)
    with pytest.raises(UserError, match="run: iters_per_inner_epoch and max_iters not set"):
        make(iters_per_epoch=None)


def test_lavis_knows_it():
    assert registry.get_lr_scheduler_class("ealign_cosine") is CosineSchedule
