"""Each trained rung's rate and mix, chosen on the validation split of another seed's world.

Every rung gets as many tries: the first of its ``ladder.tries``. They are trained with another seed (of the
world too, where the data are made from a seed) and tested on the validation split; the one with the best
``run.threshold_figure`` in the rung's own context is chosen. What starts from a rung starts from its chosen
try::

    <out>/tune7/<rung>/try1/done.json …      as of a rung
    <out>/tune7/tries.jsonl                  {"rung": "base", "try": 1, "options": ["run.init_lr=0.001"],
                                              "figure": "entity_f1", "value": 0.41, "chosen": true, …}
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ealign_plugin.errors import UserError
from ealign_plugin.files import atomic_write
from ealign_plugin.ladder.results import Result, fingerprint, finished_result
from ealign_plugin.ladder.run import Run, result_of
from ealign_plugin.ladder.rungs import Rung, read_rungs
from ealign_plugin.ladder.table import json_lines

TRIES = "tries.jsonl"


def tune_rungs(
    rungs: Sequence[Rung],
    wanted: Sequence[str],
    out: Path,
    options: Sequence[str],
    tries: int,
    seed: int,
    run: Run,
) -> dict[str, tuple[str, ...]]:
    """Try as many values of each trained rung, and choose.

    Args:
        rungs: All, in order.
        wanted: Names of those to try; what was tried of the others before counts too.
        out: Folder of the ladder; what was tried there already is not run again.
        options: ``a.b=c`` each, of all rungs.
        tries: So many of each rung that has any to try; one that has none runs once.
        seed: Of these trainings and their worlds.
        run: Runs a command.

    Returns:
        Name of a rung → the options of its chosen try.

    Raises:
        UserError: a rung has fewer tries, the seed is the world's own, there is no validation split, or a try
            failed.
    """
    grid = {rung.name: candidates(rung, tries) for rung in rungs if not rung.only_evaluates}
    options = [*options, *tuning_options(rungs[0], seed)]
    # Every try of every rung is read before the first is run: a mistake in the last one is said at once.
    tried_at = [{name: tried[number] for name, tried in grid.items() if tried} for number in range(tries)]
    ladders = [read_rungs(rungs[0].path.parent, options, tried) for tried in tried_at]
    out = out / f"tune{seed}"
    results: dict[str, Result] = {}
    chosen: dict[str, tuple[str, ...]] = {}
    lines: list[dict[str, Any]] = []
    for same_rung in zip(*ladders, strict=True):
        rung = same_rung[0]
        if rung.only_evaluates or not rung.needs <= set(results):
            continue
        tried = grid[rung.name]
        made = _made(same_rung[: len(tried) or 1], rung.name in wanted, out, results, run)
        if made is None:
            continue
        best = best_try(rung, made)
        results[rung.name] = made[best]
        if tried:
            chosen[rung.name] = tried[best]
        lines += [
            {
                "rung": rung.name,
                "try": number + 1,
                "options": tried[number] if tried else [],
                "seed": seed,
                "figure": rung.figure,
                "value": result.figures[rung.figure],
                "chosen": number == best,
                "run": str(result.run.relative_to(out)),
                "revision": result.revision,
                "config_sha256": result.config_sha256,
                "figures": result.figures,
            }
            for number, result in enumerate(made)
        ]
        atomic_write(out / TRIES, json_lines(lines))
    return chosen


def _made(
    tries: Sequence[Rung], wanted: bool, out: Path, results: Mapping[str, Result], run: Run
) -> list[Result] | None:
    """What the tries of a rung left; None where it is not wanted and one is missing."""
    made = []
    for number, rung in enumerate(tries, 1):
        folder = out / rung.name / f"try{number}"
        if wanted:
            heading = f"Try {number} of {len(tries)}: {rung.name} — {rung.label}"
            made.append(result_of(rung, folder, out, results, run, heading))
        elif found := finished_result(folder, fingerprint(rung, out, results)):
            made.append(found)
    return made if len(made) == len(tries) else None


def tuning_options(rung: Rung, seed: int) -> list[str]:
    """What all tries have beside their values: the seed, its world, and the validation split as their test.

    Raises:
        UserError: the seed is that of the rung's own world, or the rung has no validation split.
    """
    splits = rung.config["run"]["valid_splits"]
    if not splits:
        raise UserError(
            f"{rung.path}: run.valid_splits: found none, expected the split that tries are tested on"
        )
    options = [f"run.seed={seed}", f"run.test_splits=[{splits[0]}]"]
    for name, section in rung.config["datasets"].items():
        if "world" in section:
            if section["world"]["seed"] == seed:
                raise UserError(
                    f"--tune-seed: found {seed}, the seed of the world that the rungs are tested in "
                    f"(datasets.{name}.world.seed); give another"
                )
            options.append(f"datasets.{name}.world.seed={seed}")
    return options


def candidates(rung: Rung, count: int) -> list[tuple[str, ...]]:
    """The options of each of the first tries; none where the rung has nothing to try.

    Raises:
        UserError: it has some and fewer.
    """
    if rung.tries and len(rung.tries) < count:
        raise UserError(
            f"{rung.path}: ladder.tries: found {len(rung.tries)}, expected at least --tries {count}: every "
            "rung is tried as often"
        )
    return [
        tuple(f"{key}={json.dumps(value)}" for key, value in values.items()) for values in rung.tries[:count]
    ]


def best_try(rung: Rung, made: Sequence[Result]) -> int:
    """The number of the try with the best figure, the first of equal ones.

    Raises:
        UserError: none has the figure.
    """
    values = [result.figures[rung.figure] for result in made]
    if len(made) > 1 and all(value is None for value in values):
        raise UserError(
            f"{made[0].run}: no try has the figure {rung.figure}; set run.threshold_figure to another"
        )
    return max(range(len(made)), key=lambda number: _or_least(values[number]))


def _or_least(value: float | None) -> float:
    return -math.inf if value is None else value
