"""The learning rate of each iteration."""

from __future__ import annotations

import math

import pytest
import torch

from ealign_plugin.training.schedule import WarmupCosine, base_rate

PEAK, END, WARM_UP, ALL = 1e-3, 2e-5, 90, 3000


def make(**changes) -> WarmupCosine:
    optimizer = torch.optim.SGD([{"params": [torch.zeros(1)]}, {"params": [torch.zeros(1)], "lr_scale": 0.1}])
    values = {"max_iters": ALL, "min_lr": END, "init_lr": PEAK, "warmup_steps": WARM_UP}
    return WarmupCosine(optimizer, **{**values, **changes})


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


def test_groups_scale_their_rate():
    schedule = make()
    schedule.set_rate(1234)
    whole, scaled = (group["lr"] for group in schedule.optimizer.param_groups)
    assert whole == schedule.lr_at(1234) == base_rate(schedule.optimizer)
    assert scaled == pytest.approx(0.1 * whole)


def test_the_base_rate_is_that_of_parts_without_one_of_their_own():
    schedule = make()
    schedule.set_rate(1234)
    schedule.optimizer.param_groups.reverse()
    assert base_rate(schedule.optimizer) == pytest.approx(schedule.lr_at(1234))
