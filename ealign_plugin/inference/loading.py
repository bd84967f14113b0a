"""From a folder on disk to the parts of a captioner: its settings, its weights, its processors, its device.

Three kinds of folder are understood::

    checkpoints/iter_000400/    captioning.json  manifest.json  weights.safetensors …   a checkpoint
    my_model/                   captioning.json  config.json    model*.safetensors …    `ealign export`
    output/…/2026-11-23_14-05-09/   config.yaml  checkpoints/                           a run
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ealign_plugin.alignment.contexts import CONTEXTS
from ealign_plugin.alignment.prompts import fold_white_space
from ealign_plugin.distributed import choose_device
from ealign_plugin.errors import UserError
from ealign_plugin.host.plugins import installed_packages, load_installed, load_modules
from ealign_plugin.inference.options import AUTO
from ealign_plugin.inference.protocols import ImageProcessor
from ealign_plugin.inference.run_settings import read_run_config, settings_of_config
from ealign_plugin.inference.settings import NAME, CaptioningSettings
from ealign_plugin.models.base import NewsModel
from ealign_plugin.models.families import FAMILIES, build_model
from ealign_plugin.models.preprocessing import IMAGE_PROCESSOR, image_processor_from, known_arguments
from ealign_plugin.training.checkpoints.manifest import FOLDER
from ealign_plugin.training.checkpoints.store import find_weights

TEXT_PROCESSOR = "ealign_text"

CONFIG = "config.yaml"
"""A run's resolved config."""

EXPORTED = "config.json"
"""transformers' file, which every exported folder has."""


def find_settings(path: Path, config: Path | None) -> tuple[CaptioningSettings, Path | None]:
    """The settings of what a user names, and the weights to load into the model; None: it has them already.

    Args:
        path: A run's folder, a checkpoint in it, a .safetensors file, or an exported folder.
        config: YAML of the run, which replaces the settings that lie beside the weights.

    Raises:
        UserError: there is no checkpoint or no settings, or they cannot be read.
    """
    if (path / EXPORTED).is_file():
        return _exported_settings(path), None
    weights = find_weights(path)
    beside = weights.parent / NAME
    if config is None and beside.is_file():
        return CaptioningSettings.read(beside), weights
    config = config or _config_beside(weights)
    settings = settings_of_config(read_run_config(config), str(config))
    if settings.options.threshold == AUTO and beside.is_file():
        settings = settings.with_threshold(CaptioningSettings.read(beside).threshold_choice)
    return settings, weights


def _exported_settings(folder: Path) -> CaptioningSettings:
    if not (folder / NAME).is_file():
        raise UserError(
            f"{folder}: an exported folder without {NAME}; export the checkpoint again with this version"
        )
    settings = CaptioningSettings.read(folder / NAME)
    return replace(settings, model={**settings.model, "pretrained": str(folder)})


def _config_beside(weights: Path) -> Path:
    """The config of the run that wrote this checkpoint."""
    folder = weights.parent
    if folder.parent.name == FOLDER:
        folder = folder.parent.parent
    if not (folder / CONFIG).is_file():
        raise UserError(
            f"{weights}: neither {NAME} beside it nor the {CONFIG} of its run in {folder}; name the run's "
            "YAML by config="
        )
    return folder / CONFIG


def load_plugins(settings: CaptioningSettings, path: Path, trusted: Sequence[str] = ()) -> None:
    """Let other packages register what the settings name.

    A checkpoint may come from anywhere, so a module that it names is imported only if the user names it too,
    or if it belongs to an installed plugin of LAVIS. One that is imported already may be named freely.

    Args:
        settings: Of the checkpoint.
        path: Of the checkpoint, for the message.
        trusted: Modules that the user names.

    Raises:
        UserError: one of them is not trusted, or cannot be imported.
    """
    contexts = (settings.context, settings.options.usual_context)
    if settings.model.get("arch") not in FAMILIES or any(name not in CONTEXTS for name in contexts):
        load_installed()
    load_modules(trusted)
    allowed = installed_packages()
    for name in settings.plugins:
        if name not in sys.modules and name.partition(".")[0] not in allowed:
            raise UserError(
                f"{path}: it needs the module {name!r}, which is not imported on a file's word alone; import "
                f"it first, or give plugins=[{name!r}] where you trust it"
            )
    load_modules(settings.plugins)


def load_model(settings: CaptioningSettings, weights: Path | None, device: torch.device) -> NewsModel:
    """The model with its weights, on a device.

    Raises:
        UserError: the settings describe no model, or the weights are another model's.
    """
    model = build_model(settings.model)
    if weights is not None:
        model.load_checkpoint(weights)
    return model.to(device)


def make_image_processor(values: Mapping[str, Any]) -> ImageProcessor:
    """The image processor of ``name`` and arguments; LAVIS is asked for names that are not of this package.

    Raises:
        UserError: there is none of this name, or an argument is unknown.
    """
    if values.get("name") == IMAGE_PROCESSOR:
        return image_processor_from(values)
    return _registered_processor(values)


def make_text_processor(values: Mapping[str, Any]) -> Callable[[str], str]:
    """The text processor of ``name`` and arguments, as `make_image_processor`."""
    if values.get("name") == TEXT_PROCESSOR:
        known_arguments(TEXT_PROCESSOR, values, ())
        return fold_white_space
    return _registered_processor(values)


def _registered_processor(values: Mapping[str, Any]) -> Any:
    # LAVIS takes seconds to import: only for processors of its own, or of packages that register with it.
    from ealign_plugin.host.processors import processor_from

    return processor_from(values)


def find_device(name: str) -> torch.device:
    """'auto' → cuda where there is one, else cpu.

    Raises:
        UserError: torch knows no such device, or does not find it here.
    """
    try:
        device = torch.device(choose_device(name) if name == "auto" else name)
    except RuntimeError:
        raise UserError(f"device: {name!r} found; 'auto', 'cpu', 'cuda' or 'cuda:1' expected") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device: {name!r} found, but torch {torch.__version__} finds {torch.cuda.device_count()} CUDA "
            "devices; give 'auto' or another"
        )
    return device
