"""``ealign estimate``: parameters, memory and FLOPs of a run, before it is started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table

from ealign_plugin.errors import UserError
from ealign_plugin.host.run_config import load_run_config

if TYPE_CHECKING:
    from ealign_plugin.models.cost.estimate import Estimate

# Of the model's options: those that change what it costs, or that it checks against its shape.
OPTIONS = ("max_txt_len", "max_output_txt_len", "max_question_len", "dtype", "vision_dtype", "qformer_text")


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
    from ealign_plugin.models.cost.estimate import estimate as estimate_cost
    from ealign_plugin.models.cost.shapes import on_meta, reading_of, shape_of

    family = news_model_class(cfg)
    values: dict[str, Any] = OmegaConf.to_container(cfg.model_cfg, resolve=True)
    if "batch_size_train" not in cfg.run_cfg:
        raise UserError(f"{cfg_path}: run.batch_size_train: nothing found, the examples of a batch expected")
    model = on_meta(
        family,
        shape_of(values),
        trainable=values.get("trainable"),
        lora=values.get("lora"),
        **{name: values[name] for name in OPTIONS if name in values},
    )
    reading = reading_of(
        model.config,
        question=getattr(model, "max_question_len", 0),
        prompt=len(model.before) + (prompt_tokens or model.max_txt_len),
        target=target_tokens or model.max_output_txt_len,
    )
    batch = int(cfg.run_cfg.batch_size_train)
    found = estimate_cost(
        model,
        reading,
        batch=batch,
        amp=bool(cfg.run_cfg.get("amp")),
        gradient_checkpointing=bool(values.get("gradient_checkpointing")),
        eager=values.get("attn_implementation") == "eager",
        quantized=bool(values.get("quantize")),
        gpus=gpus,
        sharded=sharded,
    )
    if as_json:
        setting = {"batch": batch, "gpus": gpus, "sharded": sharded and gpus > 1}
        typer.echo(json.dumps(found.as_dict() | setting, indent=2))
    else:
        layout = "one GPU" if gpus == 1 else f"{gpus} GPUs, {'sharded' if sharded else 'DDP'}"
        _print(
            found, f"{batch} examples on each of {layout}" if gpus > 1 else f"{batch} examples on {layout}"
        )


def _print(found: Estimate, setting: str) -> None:
    values, read, console = found.as_dict(), found.reading, Console()
    table = Table("parameters", "millions", "trained")
    for part, count in values["parameters"].items():
        table.add_row(part, f"{count / 1e6:,.1f}", f"{values['trained'][part] / 1e6:,.1f}")
    _show(console, table)
    table = Table("memory of a GPU", "GiB")
    for name, size in values["memory"].items():
        if size:
            table.add_row(name, f"{size / 2**30:,.2f}")
    _show(console, table)
    console.print(f"{setting}; beside it the CUDA context (0.5 to 1 GiB) and what is lost between blocks.\n")
    table = Table("an example", "TFLOPs")
    for name, count in values["flops"].items():
        if count:
            table.add_row(name, f"{count / 1e12:,.3g}")
    _show(console, table)
    console.print(f"{read.queries} image, {read.prompt} prompt and {read.target} target tokens.")


def _show(console: Console, table: Table) -> None:
    for column in table.columns[1:]:
        column.justify = "right"
    console.print(table)
