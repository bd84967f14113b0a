"""``--seeds``: all rungs with each, one table of all."""

import shutil

import pytest

from ealign_plugin.errors import UserError
from tests.ladder.factories import lines_of


def table(tmp_path) -> list[dict[str, str]]:
    lines = (tmp_path / "out" / "ladder.txt").read_text().splitlines()
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[:6])
    return [dict(zip(head, row, strict=True)) for row in rows]


def test_every_rung_is_trained_with_each_seed_and_starts_from_its_own(start, runs, tmp_path):
    assert start(seeds=[7, 3]) == ["first", "second", "third", "fourth"] * 2
    for number, command in enumerate(runs.commands):
        seed = (3, 7)[number // 4]
        assert f"run.seed={seed}" in command
        assert all(f"/out/seed{seed}/" in word for word in command if "safetensors" in word)
    records = lines_of(tmp_path / "out" / "results.jsonl")
    assert [one["seed"] for one in records] == [3] * 4 + [7] * 4  # also of rungs whose YAML has another


def test_figures_of_several_seeds_are_mean_and_standard_deviation(start, tmp_path):
    start(seeds=[1, 2])
    first, *_, fourth = table(tmp_path)
    assert (first["seeds"], first["CIDEr"]) == ("2", "30.00 ± 28.28")  # 10 and 50
    assert (fourth["CIDEr"], fourth["sentence AUC"]) == ("60.00 ± 28.28", "-")


def test_a_further_seed_joins_those_that_are_there(start, tmp_path):
    start(seeds=[1])
    assert start(seeds=[2], only=["first"]) == ["first"]
    assert [row["seeds"] for row in table(tmp_path)] == ["2", "1", "1", "1"]
    records = lines_of(tmp_path / "out" / "results.jsonl")
    assert [(one["rung"], one["seed"]) for one in records][-2:] == [("fourth", 1), ("first", 2)]


def test_a_ladder_that_was_interrupted_in_its_second_seed_goes_on_there(start, runs, tmp_path):
    start(seeds=[1])
    runs.fail = {"second"}
    with pytest.raises(UserError, match="rung second"):
        start(seeds=[1, 2])
    assert runs.take() == ["first", "second"]
    runs.fail = set()
    assert start(seeds=[1, 2]) == ["second", "third", "fourth"]
    assert start(seeds=[1, 2]) == []


def test_without_seeds_the_configs_own_is_one_of_them(start, tmp_path):
    start(only=["first"])
    assert start(only=["first"], seeds=[42]) == []
    shutil.rmtree(tmp_path / "out" / "seed42")
    assert start(only=["first"], seeds=[42]) == ["first"]
