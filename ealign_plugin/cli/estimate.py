"""``ealign estimate``: parameters, memory and FLOPs of a run, before it is started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from ealign_plugin.errors import UserError
from ealign_plugin.host.run_config import load_run_config

if TYPE_CHECKING:
    from ealign_plugin.models.cost.estimate import Estimate


def estimate(
    cfg_path: Annotated[Path, typer.Option(help="YAML of the run.", show_default=False)],
    options: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Values that replace the YAML's, by dotted key."),
    ] = None,
    more_options: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", hidden=True)] = None,
    gpus: Annotated[int, typer.Option(min=1, help="Number of GPUs.")] = 1,
    sharded: Annotated[
        bool, typer.Option("--sharded", help="FSDP or ZeRO-3 over the GPUs instead of DDP.")
    ] = False,
    prompt_tokens: Annotated[
        int | None, typer.Option(min=1, help="Of an example; left out: model.max_txt_len, the most.")
    ] = None,
    target_tokens: Annotated[
        int | None, typer.Option(min=1, help="Of an example; left out: model.max_output_txt_len, the most.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: counts, bytes and FLOPs.")] = False,
) -> None:
    """Tell what a run needs, without downloading a weight: parameters, memory for each GPU, FLOPs.

    The batch is run.batch_size_train examples on each GPU, each as long as the model's limits let it be.

    \b
    Examples:
      ealign estimate --cfg-path train.yaml --options model.model_type=vicuna7b
      ealign estimate --cfg-path train.yaml --options model.trainable=connector+llm --gpus 8 --sharded
    """
    changes = [*(options or []), *(more_options or [])]  # --options a=1 b=2, as lavis.train has it
    cfg = load_run_config(cfg_path, changes)  # reports a bad file before the imports below take their seconds
    from ealign_plugin.cli.from_config import news_model_class
    from ealign_plugin.models.cost.estimate import estimate_config

    news_model_class(cfg)
    if "batch_size_train" not in cfg.run_cfg:
        raise UserError(f"{cfg_path}: run.batch_size_train: nothing found, the examples of a batch expected")
    batch = int(cfg.run_cfg.batch_size_train)
    cost = estimate_config(
        cfg.model_cfg,
        cfg.run_cfg,
        processes=gpus,
        sharded=sharded,
        prompt_tokens=prompt_tokens,
        target_tokens=target_tokens,
    )
    if as_json:
        setting = {"batch": batch, "gpus": gpus, "sharded": sharded and gpus > 1}
        typer.echo(json.dumps(cost.as_dict() | setting, indent=2))
    else:
        layout = "one GPU" if gpus == 1 else f"{gpus} GPUs, {'sharded' if sharded else 'DDP'}"
        print_cost(
            cost, f"{batch} examples on each of {layout}" if gpus > 1 else f"{batch} examples on {layout}"
        )


def print_cost(cost: Estimate, setting: str) -> None:
    values, read, console = cost.as_dict(), cost.reading, Console()
    table = Table("parameters", "millions", "trained")
    for part, count in values["parameters"].items():
        table.add_row(part, f"{count / 1e6:,.1f}", f"{values['trained'][part] / 1e6:,.1f}")
    print_right_aligned(console, table)
    table = Table("memory of a GPU", "GiB")
    for name, size in values["memory"].items():
        if size:
            table.add_row(name, f"{size / 2**30:,.2f}")
    print_right_aligned(console, table)
    console.print(f"{setting}; beside it the CUDA context (0.5 to 1 GiB) and what is lost between blocks.\n")
    table = Table("an example", "TFLOPs")
    for name, count in values["flops"].items():
        if count:
            table.add_row(name, f"{count / 1e12:,.3g}")
    print_right_aligned(console, table)
    console.print(f"{read.queries} image, {read.prompt} prompt and {read.target} target tokens.")


def print_right_aligned(console: Console, table: Table) -> None:
    for column in table.columns[1:]:
        column.justify = "right"
    console.print(table)
