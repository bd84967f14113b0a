"""The YAMLs that describe data sets; several share a base."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from ealign_plugin.errors import UserError
from ealign_plugin.host.config_file import missing_file, read_yaml

CONFIGS = Path(__file__).parents[1] / "configs" / "datasets"


def dataset_defaults(path: Path) -> DictConfig:
    """A data set's YAML laid over the one that its root key ``base`` names.

    ::

        base: ealign_news.yaml        # beside this file, or one of this package
        datasets:
          herald_news:
            vis_processor: {train: {image_size: 336}, eval: {image_size: 336}}

    Raises:
        UserError: a file that is missing or no YAML, or that does not describe one data set.
    """
    config = read_yaml(path)
    sections = config.get("datasets")
    if not isinstance(sections, DictConfig) or len(sections) != 1:
        raise UserError(f"{path}: datasets: the section of one data set was expected, found {sections!r}")
    if "base" not in config:
        return config
    for folder in (path.parent, CONFIGS):
        base = folder / str(config["base"])
        if base.is_file() and not base.samefile(path):
            break
    else:
        raise UserError(f"{path}: base: {missing_file(path.parent / str(config['base']), path.parent)}")
    (below,) = dataset_defaults(base)["datasets"].values()
    ((name, section),) = sections.items()
    return OmegaConf.create({"datasets": {name: OmegaConf.merge(below, section or {})}})


def has_base(path: Path) -> bool:
    """Does the YAML name a base?"""
    return "base" in read_yaml(path)
