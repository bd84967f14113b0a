"""Reading a run's YAML: what can be said about it before LAVIS is imported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ealign_plugin.errors import UserError
from ealign_plugin.validation import in_one_line, raise_all, suggest, unknown

ROOTS = ("model", "datasets", "run")


# Of LAVIS's model YAMLs, and so in every config that a run saves; what `ealign ladder` reads of a rung.
ALSO_ROOTS = ("preprocess", "ladder")


def read_config(cfg_path: str | Path, options: Sequence[str] = ()) -> DictConfig:
    """The YAML with the command line's options laid over it.

    Args:
        cfg_path: YAML file with the mappings ``model``, ``datasets`` and ``run``, of its own or of its bases
            (`with_bases`).
        options: ``a.b=c`` each, or LAVIS's older form of alternating ``a.b`` and ``c``.

    Raises:
        UserError: no such file, not YAML, not these three mappings, or options in another form.
    """
    path = Path(cfg_path)
    if not path.is_file():
        raise UserError(missing_file(path))
    config = with_bases(path)
    try:
        config = OmegaConf.merge(config, OmegaConf.from_dotlist(dotlist(options)))
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, TypeError) as error:
        raise UserError(f"--options {' '.join(options)}: {in_one_line(error)}; expected key=value") from error
    raise_all(path, root_problems(config))
    return config


def with_bases(path: Path, above: Sequence[Path] = ()) -> DictConfig:
    """A YAML laid over those that its root key ``base`` names, which have bases in turn.

    ::

        base: base.yaml             # beside this file; or a list, the later over the earlier
        run: {max_iters: 20}        # replaces that one value; a list is replaced as a whole

    Args:
        path: A file that exists.
        above: The files whose bases led here.

    Raises:
        UserError: not YAML, no mapping, or a base that is missing or leads back to itself.
    """
    config = read_yaml(path)
    if "base" not in config:
        return config
    given = OmegaConf.to_container(config)["base"]
    names = given if isinstance(given, list) else [given]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise UserError(f"{path}: base: found {given!r}, expected the path of a YAML or a list of them")
    del config["base"]
    chain, layers = [*above, path], []
    for name in names:
        below = path.parent / Path(name).expanduser()
        if not below.is_file():
            raise UserError(f"{path}: base: {missing_file(below, path.parent)}")
        if any(below.samefile(one) for one in chain):
            way = " → ".join(map(str, [*chain, below]))
            raise UserError(f"{path}: base: {below} would be its own base ({way}); take one of them out")
        layers.append(with_bases(below, chain))
    try:
        return OmegaConf.merge(*layers, config)
    except (OmegaConfBaseException, ValueError, TypeError) as error:
        raise UserError(f"{path}: base: {given}: they do not fit together: {in_one_line(error)}") from error


def read_yaml(path: Path) -> DictConfig:
    try:
        config = OmegaConf.load(path)
    except (yaml.YAMLError, UnicodeDecodeError, OmegaConfBaseException, OSError) as error:
        raise UserError(f"{path}: not readable as YAML: {in_one_line(error)}; mend the file") from error
    if not isinstance(config, DictConfig):
        raise UserError(f"{path}: found {type(config).__name__}, expected the mappings {', '.join(ROOTS)}")
    return config


def missing_file(path: Path, start: Path | None = None) -> str:
    if path.is_dir():
        return f"{path}: is a folder, expected a YAML file; give the file"
    nearby = [entry.name for entry in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
    return (
        f"{path}: no such file, expected a YAML config{suggest(path.name, nearby)}; "
        f"relative paths start at {start or Path.cwd()}"
    )


def dotlist(options: Sequence[str]) -> list[str]:
    """``['a.b', '1']`` -> ``['a.b=1']``; ``['a.b=1']`` stays."""
    if not options or "=" in options[0]:
        wrong = [option for option in options if "=" not in option]
        if wrong:
            raise UserError(
                f"--options {wrong[0]}: no value found, expected key=value, e.g. run.max_iters=20"
            )
        return list(options)
    if len(options) % 2:
        raise UserError(f"--options {options[-1]}: no value found, expected key=value, e.g. run.max_iters=20")
    return [f"{key}={value}" for key, value in zip(options[::2], options[1::2], strict=True)]


def root_problems(config: DictConfig) -> list[str]:
    problems = [unknown(str(key), key, ROOTS) for key in config if key not in ROOTS + ALSO_ROOTS]
    for root in ROOTS:
        if OmegaConf.is_missing(config, root) or not isinstance(config.get(root), DictConfig):
            found = "nothing" if config.get(root) is None else type(config[root]).__name__
            problems.append(f"{root}: found {found}, expected a mapping")
    return problems
