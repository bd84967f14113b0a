"""``ealign export``: a trained model → a folder that plain transformers loads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ealign_plugin.errors import UserError
from ealign_plugin.host.run_config import load_run_config


def export(
    cfg_path: Annotated[Path, typer.Option(help="YAML of the run that trained it.", show_default=False)],
    out: Annotated[Path, typer.Option(help="New folder.", show_default=False)],
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the run, or a checkpoint in it; left out: as model.load_finetuned says."
        ),
    ] = None,
    keep_lora: Annotated[
        bool,
        typer.Option("--keep-lora", help="Write LoRA to OUT/adapter instead of adding it to the weights."),
    ] = False,
    options: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Values that replace the YAML's, by dotted key."),
    ] = None,
    more_options: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", hidden=True)] = None,
) -> None:
    """Write a model so that transformers alone loads it, with its tokenizers and image processor.

    \b
    Examples:
      ealign export --cfg-path train.yaml --checkpoint output/.../checkpoints/best --out my_model
      ealign export --cfg-path lora.yaml --checkpoint output/.../checkpoints/best --out my_model --keep-lora

    \b
    Then, in Python:
      model = InstructBlipForConditionalGeneration.from_pretrained("my_model")
      processor = InstructBlipProcessor.from_pretrained("my_model")
      captioner = ealign_plugin.NewsCaptioner.from_checkpoint("my_model")     # not with --keep-lora
    """
    changes = [*(options or []), *(more_options or [])]  # --options a=1 b=2, as lavis.train has it
    if out.exists():
        raise UserError(f"--out {out}: exists already, a new folder expected; remove it or name another one")
    cfg = load_run_config(cfg_path, changes)  # reports a bad file before the imports below take their seconds
    from ealign_plugin.cli.from_config import image_normalisation, news_model_class
    from ealign_plugin.inference.run_settings import exported_files
    from ealign_plugin.models.weights.export import export as write
    from ealign_plugin.training.checkpoints.store import find_weights

    weights = find_weights(checkpoint) if checkpoint else None
    mean, std = image_normalisation(cfg)
    model = news_model_class(cfg).from_config(cfg.model_cfg)
    if weights:
        model.load_checkpoint(weights)
    files = {} if keep_lora else exported_files(cfg.config, str(cfg_path), weights)
    write(model.eval(), out, mean=mean, std=std, keep_lora=keep_lora, files=files)
    Console().print(f"{type(model).__name__}: {out}", soft_wrap=True, highlight=False)
