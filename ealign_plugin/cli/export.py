"""``ealign export``: a trained model → a folder that plain transformers loads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ealign_plugin.errors import UserError
from ealign_plugin.host.config_file import read_config

if TYPE_CHECKING:
    from ealign_plugin.host.config import HostConfig


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
    """
    values = [*(options or []), *(more_options or [])]  # --options a=1 b=2, as lavis.train has it
    read_config(cfg_path, values)  # a bad file is told before the imports below take their seconds
    if out.exists():
        raise UserError(f"--out {out}: exists already, a new folder expected; remove it or name another one")
    from ealign_plugin.checkpoints import weights_of
    from ealign_plugin.models.export import export as write

    learnt = weights_of(checkpoint) if checkpoint else None
    cfg = loaded(cfg_path, values)
    mean, std = normalisation(cfg)
    model = model_class(cfg).from_config(cfg.model_cfg)
    if learnt:
        model.load_checkpoint(learnt)
    write(model.eval(), out, mean=mean, std=std, keep_lora=keep_lora)
    Console().print(f"{type(model).__name__}: {out}", soft_wrap=True, highlight=False)


def loaded(cfg_path: Path, options: Sequence[str]) -> HostConfig:
    """The checked config, after LAVIS and the plugins were imported.

    Raises:
        UserError: LAVIS is missing, or something in the file is wrong.
    """
    from ealign_plugin.host.compat import check_host, import_error

    check_host()
    try:
        import lavis  # noqa: F401
    except ImportError as error:
        raise import_error(error) from error
    from ealign_plugin.host.config import load_config
    from ealign_plugin.host.plugins import load_installed

    load_installed()
    return load_config(cfg_path, options)


def model_class(cfg: HostConfig) -> Any:
    """The class of ``model.arch``.

    Raises:
        UserError: it is none of ours.
    """
    from lavis.common.registry import registry

    from ealign_plugin.models.base import NewsModel

    found = registry.get_model_class(cfg.model_cfg.arch)
    if not issubclass(found, NewsModel):
        ours = [name for name in registry.list_models() if name.startswith("ealign_")]
        raise UserError(f"model.arch: {cfg.model_cfg.arch!r} found, one of {', '.join(ours)} expected")
    return found


def normalisation(cfg: HostConfig) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of the channels, as the data sets' image processors for tests have them.

    Raises:
        UserError: two data sets normalise differently.
    """
    from lavis.common.registry import registry

    found = {}
    for name, dataset in cfg.datasets_cfg.items():
        section = dataset.vis_processor.eval
        processor = registry.get_processor_class(section.name).from_config(section)
        if not hasattr(processor, "mean"):  # LAVIS's own
            processor = processor.normalize
        found[name] = (list(processor.mean), list(processor.std))
    if len({str(values) for values in found.values()}) > 1:
        raise UserError(
            f"datasets: {' and '.join(found)} have vis_processor.eval with unlike mean or std; "
            "a model is exported with one"
        )
    return next(iter(found.values()))
