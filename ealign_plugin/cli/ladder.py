"""``ealign ladder``: the rungs of an ablation, one after another, and one table of all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ealign_plugin.host.config_file import dotlist
from ealign_plugin.ladder.ladder import run_ladder
from ealign_plugin.ladder.run import run_process


def ladder(
    folder: Annotated[Path, typer.Argument(help="Folder of the rungs' YAMLs.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the runs and the table; left out: output/ladder/<FOLDER>.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="RUNG", help="Run this rung, and those whose weights it needs; repeatable."),
    ] = None,
    seeds: Annotated[
        list[int] | None,
        typer.Option(
            metavar="SEED ...",
            help="run.seed; all rungs are run with each. Left out: the YAMLs' own.",
        ),
    ] = None,
    tries: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="First try N values of each trained rung, the first of its ladder.tries, on the validation "
            "split, and run it with the best; needs --tune-seed.",
        ),
    ] = None,
    tune_seed: Annotated[
        int | None,
        typer.Option(metavar="SEED", help="Seed of the tries, and of the world that they are tried in."),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Values that replace those of every rung, by dotted key."),
    ] = None,
    more_options: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", hidden=True)] = None,
) -> None:
    """Run every rung of an ablation ladder and print one table.

    A finished rung is not run again, so the same command continues an interrupted ladder; a changed YAML is
    run again, and so are the rungs that start from its weights. results.jsonl has the figures, a line for
    each rung and seed, with git revision and hash of the config.

    \b
    Examples:
      ealign ladder projects/ealign/ladder/micro
      ealign ladder projects/ealign/ladder/micro --only base --only eama
      ealign ladder projects/ealign/ladder/micro --seeds 1 2 3 --tries 3 --tune-seed 99
      ealign ladder projects/ealign/ladder/micro --out output/short --options run.max_iters=300
    """
    # Words that stand behind the first of an option arrive as arguments: --seeds 1 2 3, --options a=1 b=2.
    more = more_options or []
    further = [word for word in more if seeds and word.isdecimal()]
    changes = dotlist([*(options or []), *(word for word in more if word not in further)])
    run_ladder(
        folder,
        (out or Path("output", "ladder", folder.resolve().name)).absolute(),
        run_process,
        only=only or [],
        seeds=list(dict.fromkeys([*(seeds or []), *map(int, further)])),
        tries=tries,
        tune_seed=tune_seed,
        options=changes,
    )
