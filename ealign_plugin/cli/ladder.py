"""``ealign ladder``: the rungs of an ablation, one after another, and one table of all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ealign_plugin.host.config_file import dotlist
from ealign_plugin.ladder.run import run_process, run_rungs
from ealign_plugin.ladder.rungs import read_rungs, select_rungs


def ladder(
    folder: Annotated[Path, typer.Argument(help="Folder of the rungs' YAMLs.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the runs and the table; left out: output/ladder/<FOLDER>.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="RUNG", help="Run this rung, and those whose weights it needs; repeatable."),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Values that replace those of every rung, by dotted key."),
    ] = None,
    more_options: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", hidden=True)] = None,
) -> None:
    """Run every rung of an ablation ladder and print one table.

    A finished rung is not run again, so the same command continues an interrupted ladder; a changed YAML is
    run again, and so are the rungs that start from its weights.

    \b
    Examples:
      ealign ladder projects/ealign/ladder/micro
      ealign ladder projects/ealign/ladder/micro --only base --only eama
      ealign ladder projects/ealign/ladder/micro --out output/seed7 --options run.seed=7
    """
    changes = dotlist([*(options or []), *(more_options or [])])  # --options a=1 b=2, as lavis.train has it
    rungs = read_rungs(folder, changes)
    out = (out or Path("output", "ladder", folder.resolve().name)).absolute()
    run_rungs(rungs, select_rungs(rungs, only or []), out, changes, run_process)
