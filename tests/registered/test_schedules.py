"""The learning rate of each iteration."""

import math
from types import SimpleNamespace

import pytest
import torch
from lavis.common.registry import registry
from omegaconf import OmegaConf

from ealign_plugin.errors import UserError
from ealign_plugin.registered.schedules import CosineSchedule

PEAK, END, WARM_UP, ALL = 1e-3, 2e-5, 90, 3000


def make(**changes) -> CosineSchedule:
    optimizer = torch.optim.SGD([{"params": [torch.zeros(1)]}, {"params": [torch.zeros(1)], "lr_scale": 0.1}])
    values = {
        "max_epoch": 3,
        "iters_per_epoch": 1000,
        "min_lr": END,
        "init_lr": PEAK,
        "warmup_steps": WARM_UP,
    }
    return CosineSchedule(optimizer, **{**values, **changes})


@pytest.fixture
def configured(monkeypatch):
    """``configured(max_iters=..., ...)`` makes the run section that LAVIS's registry hands out."""

    def register(**run) -> None:
        configuration = SimpleNamespace(run_cfg=OmegaConf.create(run))
        monkeypatch.setitem(registry.mapping["state"], "configuration", configuration)

    return register


def test_landmarks():
    rate = make().lr_at
    assert rate(0) == pytest.approx(PEAK / WARM_UP)
    assert rate(WARM_UP) == PEAK
    assert rate((WARM_UP + ALL) // 2) == pytest.approx((PEAK + END) / 2)
    assert rate(ALL) == pytest.approx(END)
    assert rate(ALL + 500) == pytest.approx(END)


def test_warm_up_is_a_line_from_its_start():
    schedule = make(warmup_start_lr=1e-4)
    for iteration in range(WARM_UP):
        assert schedule.lr_at(iteration) == pytest.approx(1e-4 + (PEAK - 1e-4) * iteration / WARM_UP)


def test_then_a_cosine_at_every_iteration():
    schedule = make()
    for iteration in range(WARM_UP, ALL):
        half_turn = math.pi * (iteration - WARM_UP) / (ALL - WARM_UP)
        assert schedule.lr_at(iteration) == pytest.approx(END + (PEAK - END) * (1 + math.cos(half_turn)) / 2)
        assert schedule.lr_at(iteration) > schedule.lr_at(iteration + 1)


def test_without_warm_up_it_starts_at_the_peak():
    assert make(warmup_steps=0).lr_at(0) == PEAK


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


def test_groups_scale_their_rate():
    schedule = make()
    schedule.step(cur_epoch=1, cur_step=234)
    whole, scaled = (group["lr"] for group in schedule.optimizer.param_groups)
    assert whole == schedule.lr_at(1234)
    assert scaled == pytest.approx(0.1 * whole)


def test_a_runner_by_epochs_is_told_what_is_missing(configured):
    configured(max_epoch=10)
    with pytest.raises(UserError, match="run: iters_per_inner_epoch and max_iters not set"):
        make(iters_per_epoch=None)


def test_lavis_knows_it():
    assert registry.get_lr_scheduler_class("ealign_cosine") is CosineSchedule
