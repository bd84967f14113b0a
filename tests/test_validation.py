"""Ranges check a value, describe themselves and say in one line what is wrong; options carry theirs."""

from dataclasses import dataclass

import pytest

from ealign_plugin.errors import UserError
from ealign_plugin.validation import (
    Choice,
    Number,
    as_yaml,
    check_keys,
    option,
    option_defaults,
    option_help,
    option_ranges,
    raise_all,
    type_problem,
    unknown,
)


@pytest.mark.parametrize(
    ("number", "good", "bad"),
    [
        (Number(least=1, whole=True), [1, 7], [0, 1.0, True, "1", None]),
        (Number(least=0, most=1), [0, 0.5, 1], [-0.1, 1.1, True, float("nan"), float("inf"), None]),
        (Number(above=0), [1e-9, 5], [0, -1, float("inf")]),
        (Number(least=0, below=1), [0, 0.99], [1]),
        (Number(least=1, whole=True, allow_none=True), [None, 1], [0, 1.5]),
        (Number(), [0, -3.5], ["x", [], False]),
        (Number(allow_none=True, words=("auto",)), [0.5, None, "auto"], ["x", "0.5", True]),
    ],
    ids=str,
)
def test_numbers_within_limits(number, good, bad):
    assert [value for value in good if not number.accepts(value)] == []
    assert [value for value in bad if number.accepts(value)] == []
    assert [number.problem("key", value) for value in good] == [""] * len(good)
    assert all(number.problem("key", value).startswith("key: found ") for value in bad)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (Number(), "a number"),
        (Number(least=1, whole=True), "a whole number of at least 1"),
        (Number(least=0, most=1), "a number from 0 to 1"),
        (Number(above=0), "a number above 0"),
        (Number(least=0, below=1), "a number of at least 0 and below 1"),
        (Number(least=1, whole=True, allow_none=True), "a whole number of at least 1, or null"),
        (Number(words=("auto",)), "a number, or auto"),
        (Number(least=0, allow_none=True, words=("auto",)), "a number of at least 0, null, or auto"),
        (Choice((False, "bf16", None)), "false, bf16 or null"),
    ],
)
def test_a_range_describes_itself(number, words):
    assert str(number) == words


def test_a_problem_names_the_limit_or_the_type_that_was_expected():
    steps = Number(least=1, whole=True)
    assert steps.problem("run.max_iters", 0) == "run.max_iters: found 0, expected at least 1"
    assert steps.problem("run.max_iters", "x") == (
        "run.max_iters: found 'x', expected a whole number of at least 1"
    )
    with pytest.raises(UserError, match="run.max_iters: found 0"):
        steps.check("run.max_iters", 0)


def test_a_choice_tells_true_from_1():
    amp = Choice((False, True, "bf16"))
    assert amp.accepts(True) and amp.accepts("bf16")
    assert not amp.accepts(1) and not amp.accepts("true") and not amp.accepts(None)
    assert amp.problem("run.amp", 1) == "run.amp: found 1, expected false, true or bf16"


@dataclass(frozen=True, kw_only=True)
class Options:
    steps: int = option(5, "steps of the run", least=1)
    share: float | None = option(None, "share of it", least=0, most=1)
    names: tuple[str, ...] = option(("a",), "names")
    rates: dict = option({}, "rates")
    kind: str = option("x", "kind", choices=("x", "y"))
    border: float | str | None = option(0.5, "border", words=("auto",))


def test_options_give_defaults_help_and_ranges():
    plain = {"steps": 5, "share": None, "names": ["a"], "rates": {}, "kind": "x", "border": 0.5}
    assert option_defaults(Options) == plain
    assert option_help(Options)["share"] == "share of it"
    assert option_ranges(Options) == {
        "steps": Number(least=1, whole=True),
        "share": Number(least=0, most=1, allow_none=True),
        "kind": Choice(("x", "y")),
        "border": Number(allow_none=True, words=("auto",)),
    }
    first, second = Options(), Options()
    assert first.rates == {} and first.rates is not second.rates


@pytest.mark.parametrize(
    ("value", "expected", "problem"),
    [
        (None, int, ""),
        (3, float, ""),
        (True, bool, ""),
        (True, int, "key: found True, expected a whole number"),
        (True, float, "key: found True, expected a number"),
        ("x", bool, "key: found 'x', expected true or false"),
        ({}, list, "key: found {}, expected a list"),
        ("x", None, ""),
    ],
)
def test_types_in_a_yamls_words(value, expected, problem):
    assert type_problem("key", value, expected) == problem


def test_names_that_are_near_are_suggested():
    assert unknown("run.sead", "sead", ["seed"]) == "run.sead: unknown key 'sead'; did you mean 'seed'?"
    assert unknown("x", "q", []) == "x: unknown key 'q'; expected none here"
    assert unknown("x", "q", ["b", "a"]) == "x: unknown key 'q'; expected one of a, b"
    listed = unknown("model.trainable", "llms", ["vision", "llm"], "part", list_all=True)
    assert listed == "model.trainable: unknown part 'llms'; did you mean 'llm'? Expected one of llm, vision"


def test_what_is_known_is_cut_short_unless_all_is_asked_for():
    names = [f"name{number:02}" for number in range(20)]
    assert unknown("x", "q", names).endswith("name10, name11 ... (20 in all)")
    assert unknown("x", "q", names, list_all=True).endswith("name18, name19")


def test_the_first_key_that_is_not_known_is_refused():
    check_keys("run", ["seed", "amp"], ["amp", "seed"])
    with pytest.raises(UserError, match="^run: unknown option 'sead'; did you mean 'seed'. Expected one"):
        check_keys("run", ["seed", "sead"], ["amp", "seed"], "option")


def test_several_problems_are_one_message():
    raise_all("run.yaml", [])
    with pytest.raises(UserError, match="^run.yaml: one$"):
        raise_all("run.yaml", ["one"])
    with pytest.raises(UserError, match="^run.yaml: 2 problems\n  one\n  two$"):
        raise_all("run.yaml", ["one", "two"])


def test_values_as_a_yaml_writes_them():
    value = {"a": [None, True, "b"], "c": 1.5}
    assert as_yaml(value) == "{a: [null, true, b], c: 1.5}"
