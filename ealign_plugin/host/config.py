"""A run's config: the YAML, checked, with the defaults of LAVIS, task, runner, model and data sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lavis.common.config import Config
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ealign_plugin.errors import UserError
from ealign_plugin.host.config_checks import dataset_problems, model_problems, run_problems
from ealign_plugin.host.config_file import read_config
from ealign_plugin.host.plugins import load_modules
from ealign_plugin.host.registration import refresh_catalogues, set_configuration
from ealign_plugin.host.run_keys import run_defaults
from ealign_plugin.validation import in_one_line, raise_all


class HostConfig(Config):
    """LAVIS's Config made of a YAML that is already read, checked and merged with the options.

    LAVIS merges the options last: ``--options model.model_type=x`` would keep the other type's defaults.
    """

    def __init__(self, user: DictConfig) -> None:
        set_configuration(self)
        self.args = None
        self.config = OmegaConf.merge(
            self.build_runner_config(user), self.build_model_config(user), self.build_dataset_config(user)
        )


def load_config(cfg_path: str | Path, options: Sequence[str] = ()) -> HostConfig:
    """Read, check, complete; installed plugins are expected to be imported (`load_run_config` does that).

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
    refresh_catalogues()  # plugins may have registered models and data sets
    raise_all(
        cfg_path,
        [*run_problems(plain), *model_problems(plain["model"]), *dataset_problems(plain["datasets"])],
    )
    user.run = OmegaConf.merge(run_defaults(plain["run"]), user.run)
    return HostConfig(user)
