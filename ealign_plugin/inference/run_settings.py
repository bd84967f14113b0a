"""The settings of a run, from its resolved config: for its checkpoints, and for runs of older versions.

LAVIS is not needed: ``config.yaml`` holds every value. A YAML written by hand holds only some: the defaults
of this package's data sets and of the model types join it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ealign_plugin.alignment.contexts import CONTEXTS
from ealign_plugin.alignment.prompts import Templates
from ealign_plugin.data.defaults import DATASETS, dataset_defaults
from ealign_plugin.data.shards.index import INDEX_NAME, ShardIndex
from ealign_plugin.entities import DEFAULT_NER
from ealign_plugin.errors import UserError
from ealign_plugin.files import as_path
from ealign_plugin.host.config_file import read_config
from ealign_plugin.inference.options import AUTO, INFERENCE_OPTIONS, InferenceOptions, defaults
from ealign_plugin.inference.settings import NAME, CaptioningSettings
from ealign_plugin.inference.two_pass import main_context
from ealign_plugin.validation import in_one_line


def settings_of_config(
    config: Mapping[str, Any], where: str, ner: Mapping[str, str] | None = None
) -> CaptioningSettings:
    """The settings that a config describes.

    Args:
        config: ``model``, ``datasets`` and ``run``, resolved.
        where: How an error calls the config.
        ner: Name and version of the spaCy model that annotated the data; None: as far as config and shards
            say it here.

    Raises:
        UserError: data sets that ask in different words, or no image processor.
    """
    datasets = {
        name: _with_defaults(name, section or {}) for name, section in (config["datasets"] or {}).items()
    }
    if not datasets:
        raise UserError(f"{where}: datasets: found none, expected those that the model was trained with")
    run = {**defaults(), **{key: value for key, value in (config["run"] or {}).items()}}
    name, first = next(iter(datasets.items()))
    image_processor = (first.get("vis_processor") or {}).get("eval")
    if image_processor is None:
        raise UserError(f"{where}: datasets.{name}.vis_processor.eval: missing, expected the image processor")
    texts = first.get("text_processor") or {}
    known = [context for context in run["contexts"] or () if context in CONTEXTS]
    usable = [context for context in known if not CONTEXTS[context].reads_caption]
    return CaptioningSettings(
        model=config["model"],
        templates=_templates(datasets, where),
        context=main_context(usable or ["refined"]),
        options=InferenceOptions(**{key: run[key] for key in INFERENCE_OPTIONS}),
        ner=ner or _ner(datasets),
        image_processor=image_processor,
        text_processor=texts.get("train") or texts.get("eval") or {"name": "ealign_text"},
        plugins=tuple(run.get("plugins") or ()),
    )


def plain_sections(config: Mapping[str, Any] | DictConfig) -> dict[str, Any]:
    """The sections of a config as plain values, ``${...}`` resolved."""
    plain = OmegaConf.to_container(OmegaConf.create(config), resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def checkpoint_files(
    config: Mapping[str, Any] | DictConfig,
    ner: Mapping[str, str] | None = None,
    choice: Mapping[str, Any] | None = None,
) -> dict[str, bytes]:
    """The file that a checkpoint of this run carries; {} where a captioner could not ask as the run did.

    Args:
        config: ``model``, ``datasets`` and ``run`` of the run.
        ner: As in `settings_of_config`.
        choice: How the threshold was chosen; None: it was not, or not yet.
    """
    try:
        settings = settings_of_config(plain_sections(config), "config", ner)
        return {NAME: settings.with_threshold(choice).to_bytes()}
    except UserError as error:  # such as data sets that ask in different words
        logging.warning("No %s beside the weights: %s", NAME, error)
        return {}


def exported_files(
    config: Mapping[str, Any] | DictConfig, where: str, weights: Path | None
) -> dict[str, bytes]:
    """The same for an exported folder.

    Args:
        config: Of the model that is exported.
        where: How a message calls the config.
        weights: Those that were loaded into the model: of a checkpoint that may carry its own settings.
    """
    try:
        settings = settings_of_config(plain_sections(config), where)
        if weights is not None and (weights.parent / NAME).is_file():
            beside = CaptioningSettings.read(weights.parent / NAME)
            settings = replace(settings, ner=beside.ner).with_threshold(beside.threshold_choice)
    except UserError as error:
        logging.warning("No %s in the folder: %s", NAME, error)
        return {}
    if settings.options.threshold == AUTO:
        logging.warning(
            "run.threshold: auto found, and none was chosen for %s: who captions with the folder must give "
            "one; export the checkpoint that the run tested, or set run.threshold to a number",
            weights or where,
        )
    return {NAME: settings.for_exported_folder().to_bytes()}


def read_run_config(path: Path) -> dict[str, Any]:
    """The sections of a run's YAML as plain values.

    Raises:
        UserError: no such file, not YAML, or a section is missing.
    """
    config = read_config(path)
    try:
        return plain_sections(config)
    except OmegaConfBaseException as error:
        raise UserError(f"{path}: {in_one_line(error)}") from error


def _with_defaults(name: str, section: Mapping[str, Any]) -> dict[str, Any]:
    """A data set's section over its defaults, where its name is known."""
    if name not in DATASETS:
        return dict(section)
    defaults_of_name = dataset_defaults(DATASETS[name].path)["datasets"][name]
    merged = OmegaConf.merge(defaults_of_name, OmegaConf.create(dict(section)))
    values = OmegaConf.to_container(merged, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _templates(datasets: Mapping[str, Mapping[str, Any]], where: str) -> Templates:
    """The words of all data sets, which are the same."""
    templates = {
        name: Templates().changed(section.get("templates") or {}) for name, section in datasets.items()
    }
    if len(set(templates.values())) > 1:
        raise UserError(
            f"{where}: datasets {' and '.join(templates)} have unlike templates, the same expected: a "
            "captioner asks in one way; take out all but one by a YAML of your own (config=)"
        )
    return next(iter(templates.values()))


def _ner(datasets: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The spaCy model of the first data set that names one: in its section, or in its shards if here."""
    for section in datasets.values():
        if isinstance(world := section.get("world"), Mapping):
            return {"name": str(world["ner"]), "version": ""}
        storage = ((section.get("build_info") or {}).get("images") or {}).get("storage")
        if storage and (folder := as_path(str(storage))) and (folder / INDEX_NAME).is_file():
            try:
                return dict(ShardIndex.load(folder).ner)
            except UserError:  # shards that cannot be used here, and need not be
                continue
    return {"name": DEFAULT_NER, "version": ""}
