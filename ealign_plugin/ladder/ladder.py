"""A whole ladder: the tries, then all rungs with each seed, then the table.

::

    <out>/tune7/      the tries, where there are any (`ealign_plugin.ladder.tuning`)
    <out>/seed1/ …    a folder for each seed, and in it one for each rung
    <out>/results.jsonl   ladder.txt

Whatever is finished is not run again, so that the same command goes on with an interrupted ladder.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ealign_plugin.errors import UserError
from ealign_plugin.ladder.results import fingerprint, finished_result
from ealign_plugin.ladder.run import Run, result_of
from ealign_plugin.ladder.rungs import read_rungs, select_rungs
from ealign_plugin.ladder.table import Column, write_lines, write_table
from ealign_plugin.ladder.tuning import tune_rungs
from ealign_plugin.validation import Number


def run_ladder(
    folder: Path,
    out: Path,
    run: Run,
    *,
    only: Sequence[str] = (),
    seeds: Sequence[int] = (),
    tries: int | None = None,
    tune_seed: int | None = None,
    options: Sequence[str] = (),
) -> None:
    """Run what is not finished, and print and write the table of all seeds that are there.

    Args:
        folder: Of the rungs' YAMLs.
        out: Absolute path of the folder for runs, lines and table.
        run: Runs a command and returns its exit code.
        only: Names of rungs; these and those whose weights they need. Empty: all.
        seeds: ``run.seed`` of the trainings; empty: the config's alone.
        tries: How many values of each rung are tried before; None: none, the YAMLs hold.
        tune_seed: Seed of the tries and of their world.
        options: ``a.b=c`` each, of all rungs.

    Raises:
        UserError: a mistake in a rung or an option, found before the first rung is run, or a rung failed.
    """
    rungs = read_rungs(folder, options)
    wanted = [rung.name for rung in select_rungs(rungs, only)]
    own = int(rungs[0].config["run"]["seed"])
    _check_tuning(tries, tune_seed, seeds or [own])
    chosen: dict[str, tuple[str, ...]] = {}
    if tries and tune_seed is not None:
        chosen = tune_rungs(rungs, wanted, out, options, tries, tune_seed, run)

    asked = list(seeds) or [own]
    columns = []
    for seed in sorted({*asked, *_seeds_in(out)}):
        of_seed = [f"run.seed={seed}"] if seeds or seed != own else []  # a rung's YAML may have its own
        same = not of_seed and not chosen
        of_column = rungs if same else read_rungs(folder, [*options, *of_seed], chosen)
        columns.append(Column(seed, of_column, {}))
    for column in columns:
        _find_finished(column, out)
    for column in columns:
        if column.seed in asked:
            _run_rungs(column, wanted, columns, out, run)
    write_table(columns, out)


def _check_tuning(tries: int | None, tune_seed: int | None, seeds: Sequence[int]) -> None:
    if (tries is None) != (tune_seed is None):
        raise UserError("--tries and --tune-seed: one was found without the other, expected both or neither")
    if tries is not None:
        Number(least=1, whole=True).check("--tries", tries)
    if tune_seed in seeds:
        raise UserError(f"--tune-seed: found {tune_seed}, which is a seed of the rungs; give another")


def _seeds_in(out: Path) -> list[int]:
    """The seeds that runs are there of."""
    found = (re.fullmatch(r"seed(\d+)", path.name) for path in out.glob("seed*"))
    return [int(match[1]) for match in found if match]


def _find_finished(column: Column, out: Path) -> None:
    """Add the results that are there already; a rung whose start has none is not finished."""
    out = out / f"seed{column.seed}"
    for rung in column.rungs:
        if rung.needs <= set(column.results):
            if found := finished_result(out / rung.name, fingerprint(rung, out, column.results)):
                column.results[rung.name] = found


def _run_rungs(column: Column, wanted: Sequence[str], columns: Sequence[Column], out: Path, run: Run) -> None:
    """Run the wanted rungs of a seed that are not finished."""
    folder = out / f"seed{column.seed}"
    for rung in column.rungs:
        if rung.name in wanted:
            number = f"{wanted.index(rung.name) + 1} of {len(wanted)}"
            heading = f"Seed {column.seed}, {number}: {rung.name} — {rung.label}"
            column.results[rung.name] = result_of(
                rung, folder / rung.name, folder, column.results, run, heading
            )
            write_lines(columns, out)
