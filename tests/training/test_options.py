"""The options of a training run."""

from __future__ import annotations

from dataclasses import fields

import pytest
from omegaconf import OmegaConf

from ealign_plugin.training.options import TrainingOptions
from ealign_plugin.validation import Choice, option_defaults, option_help, option_ranges

DEFAULTS, RANGES = option_defaults(TrainingOptions), option_ranges(TrainingOptions)


def test_each_option_has_a_default_and_one_line_of_help():
    helps = option_help(TrainingOptions)
    assert set(DEFAULTS) == set(helps) == {each.name for each in fields(TrainingOptions)}
    assert all(text and "\n" not in text for text in helps.values())


def test_defaults_lie_within_their_ranges():
    for each in fields(TrainingOptions):
        if each.name in RANGES:
            assert RANGES[each.name].problem(each.name, DEFAULTS[each.name]) == ""


def test_the_defaults_are_those_of_an_empty_run():
    options = TrainingOptions.from_run({})
    assert {name: getattr(options, name) for name in DEFAULTS} == DEFAULTS
    assert TrainingOptions() == options


def test_a_run_sets_some_and_may_hold_other_keys():
    run = OmegaConf.create({"clip_grad_norm": 0, "lrs": {"llm": 1e-5}, "save_freq": None, "task": "any"})
    options = TrainingOptions.from_run(run)
    assert (options.clip_grad_norm, options.lrs["llm"], options.save_freq) == (0, 1e-5, None)
    assert options.keep_last == DEFAULTS["keep_last"]


def test_a_default_that_is_a_mapping_is_not_shared():
    option_defaults(TrainingOptions)["lrs"]["llm"] = 1.0
    assert option_defaults(TrainingOptions)["lrs"] == {} == TrainingOptions().lrs


@pytest.mark.parametrize("name", ["amp", "parallel", "resume"])
def test_some_have_but_a_few_values(name):
    choice = option_ranges(TrainingOptions)[name]
    assert isinstance(choice, Choice) and len(choice.values) > 1
