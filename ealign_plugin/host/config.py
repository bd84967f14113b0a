"""``ealign export``: a trained model → a folder that plain transformers loads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lavis.common.optims  # noqa: F401  registers LAVIS's schedules, which `import lavis` does not
from lavis.common.config import Config
from lavis.common.registry import registry
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ealign_plugin.errors import UserError
from ealign_plugin.host.config_checks import dataset_problems, model_problems, run_problems
from ealign_plugin.host.config_file import read_config
from ealign_plugin.host.plugins import load_modules
from ealign_plugin.host.run_keys import run_defaults
from ealign_plugin.validation import in_one_line, raise_all


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


class HostConfig(Config):
    """LAVIS's Config made of a YAML that is already read, checked and merged with the options.

    LAVIS merges the options last: ``--options model.model_type=x`` would keep the other type's defaults.
    """

    def __init__(self, user: DictConfig) -> None:
        registry.register("configuration", self)
        self.args = None
        self.config = OmegaConf.merge(
            self.build_runner_config(user), self.build_model_config(user), self.build_dataset_config(user)
        )


def load_config(cfg_path: str | Path, options: Sequence[str] = ()) -> HostConfig:
    """Read, check, complete.

    Raises:
        UserError: with every unknown key and name, wrong type and missing value, one line each.
    """
    user = read_config(cfg_path, options)
    try:
        plain = OmegaConf.to_container(user, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UserError(f"{cfg_path}: {in_one_line(error)}") from error
    assert isinstance(plain, dict)
    load_modules(plain["run"].get("plugins") or [])
    raise_all(
        cfg_path,
        [*run_problems(plain), *model_problems(plain["model"]), *dataset_problems(plain["datasets"])],
    )
    user.run = OmegaConf.merge(run_defaults(plain["run"]), user.run)
    return HostConfig(user)
