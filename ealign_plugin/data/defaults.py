"""Data sets by name: the YAML that describes each, and the reader that its shards are made by.

What another package adds to them is two lines beside its reader::

    register_dataset("herald", Path(__file__).with_name("herald.yaml"), source="herald")
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from ealign_plugin.errors import UserError
from ealign_plugin.host.config_file import missing_file, read_yaml
from ealign_plugin.registry import Registry

CONFIGS = Path(__file__).parents[1] / "configs" / "datasets"


@dataclass(frozen=True, slots=True)
class DatasetDescription:
    """A data set that configs can name.

    Args:
        path: The YAML with its defaults; see `dataset_defaults`.
        source: Reader of ``ealign prepare`` whose shards are looked for in the cache; empty: none.
    """

    path: Path
    source: str = ""


DATASETS: Registry[DatasetDescription] = Registry("data set")
"""By the names that stand under ``datasets`` in a config."""


def register_dataset(name: str, yaml_path: str | Path, source: str = "") -> DatasetDescription:
    """Let configs name a data set: shards of this project, with the defaults of a YAML.

    Args:
        name: As configs name it; the YAML describes ``datasets.<name>``.
        yaml_path: The YAML; five lines over the base ``ealign_news.yaml`` are enough.
        source: See `DatasetDescription`.

    Raises:
        UserError: the YAML is missing or describes no data set of this name.

    Example:
        >>> register_dataset("ealign_goodnews", CONFIGS / "ealign_goodnews.yaml", "goodnews").source
        'goodnews'
    """
    path = Path(yaml_path)
    if name not in dataset_defaults(path)["datasets"]:
        raise UserError(f"{path}: datasets.{name}: missing, the section of the data set was expected")
    return DATASETS.register(name, DatasetDescription(path, source))


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
    base = base_of(path)
    if base is None:
        return config
    (below,) = dataset_defaults(base)["datasets"].values()
    ((name, section),) = sections.items()
    return OmegaConf.create({"datasets": {name: OmegaConf.merge(below, section or {})}})


def base_of(path: Path) -> Path | None:
    """The YAML that a data set's YAML names as its base; None where it names none.

    Raises:
        UserError: there is no such file.
    """
    config = read_yaml(path)
    if "base" not in config:
        return None
    for folder in (path.parent, CONFIGS):
        base = folder / str(config["base"])
        if base.is_file() and not base.samefile(path):
            return base
    raise UserError(f"{path}: base: {missing_file(path.parent / str(config['base']), path.parent)}")


register_dataset("ealign_news", CONFIGS / "ealign_news.yaml")
register_dataset("ealign_micronews", CONFIGS / "ealign_micronews.yaml")
register_dataset("ealign_micronews_closed", CONFIGS / "ealign_micronews_closed.yaml")
for _source in ("goodnews", "nytimes800k", "visualnews"):
    register_dataset(f"ealign_{_source}", CONFIGS / f"ealign_{_source}.yaml", _source)
