"""Reading the rungs of an ablation ladder.

A folder of YAMLs, a rung each, in the order of their numbers::

    base.yaml             what they share; no number, no rung
                          ladder: {tries: [{run.init_lr: 1.0e-3}, {run.init_lr: 2.0e-3}]}
    02_base.yaml          base: base.yaml
                          ladder: {label: Base, start: pretrained, published: {cider: 82.70}}
    10_base_long.yaml     ladder: {label: Base, longer local context, start: base}
                          run: {evaluate: true, context_words: 160}

A rung is trained from the weights of its ``start``, or, with ``run.evaluate``, evaluates them. Of a trained
one ``tries`` are the values that may be tried beforehand (`ealign_plugin.ladder.tuning`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ealign_plugin.errors import UserError
from ealign_plugin.host.config_file import read_config
from ealign_plugin.host.run_config import load_run_config
from ealign_plugin.validation import unknown

FIGURES = (
    "people_right",
    "entity_precision",
    "entity_recall",
    "entity_f1",
    "bleu4",
    "meteor",
    "rouge",
    "cider",
)


PUBLISHED = ("bleu4", "meteor", "rouge", "cider", "entity_precision", "entity_recall")


PUBLISHED_CIDER = "published CIDEr (NYTimes800k)"


SOURCE = "EAMA v5 (arXiv 2402.19404), NYTimes800k"


SECTION = ("label", "start", "published", "tries")


@dataclass(frozen=True, slots=True)
class Rung:
    """One YAML of a ladder.

    Args:
        name: The file's without number and ending.
        path: The file.
        label: Its row in the table.
        start: The rung whose weights it begins with or evaluates; empty: those of the model's config.
        begin: The rung whose weights are loaded before any training or checkpoint: of one that evaluates the
            start of its start.
        published: Figures of the paper, times 100, as printed there.
        config: The whole config, checked, with all defaults.
        options: ``a.b=c`` each: what the config has beside its YAML.
        tries: Dotted keys and their values, of each try.
    """

    name: str
    path: Path
    label: str
    start: str
    begin: str
    published: Mapping[str, float]
    config: Mapping[str, Any]
    options: tuple[str, ...] = ()
    tries: tuple[Mapping[str, Any], ...] = ()

    @property
    def only_evaluates(self) -> bool:
        return bool(self.config["run"]["evaluate"])

    @property
    def needs(self) -> set[str]:
        """The rungs whose weights it needs."""
        return {self.start, self.begin} - {""}

    @property
    def figure(self) -> str:
        """The figure for which its threshold and its try are chosen."""
        return str(self.config["run"]["threshold_figure"])

    @property
    def context(self) -> str:
        """'head, 80 words': what the captions of the test are written from."""
        strategy = self.config["run"]["contexts"][0]
        return (
            strategy
            if strategy in ("none", "full")
            else f"{strategy}, {self.config['run']['context_words']} words"
        )


def read_rungs(
    folder: Path, options: Sequence[str], chosen: Mapping[str, Sequence[str]] | None = None
) -> list[Rung]:
    """All rungs in order, each checked: a mistake in the last one is reported before the first is run.

    Args:
        folder: Of their YAMLs.
        options: ``a.b=c`` each, of all rungs.
        chosen: Name of a rung → further options of it, which go before those of all.

    Raises:
        UserError: no folder of rungs, or something in one of them is wrong.
    """
    files = []
    for path in folder.glob("*.yaml"):
        if parts := re.fullmatch(r"(\d+)_(.+)", path.stem):
            files.append((int(parts[1]), parts[2], path))
    if not files:
        raise UserError(
            f"{folder}: no rungs found, expected a folder of YAMLs named by number and name, e.g. "
            "02_base.yaml; give projects/ealign/ladder/micro or a folder of your own"
        )
    rungs: list[Rung] = []
    for _, _, path in sorted(files):
        read_config(path, options)  # reports a bad file before LAVIS's import takes its seconds
    for _, name, path in sorted(files):
        rungs.append(read_rung(name, path, [*options, *(chosen or {}).get(name, ())], rungs))
    return rungs


def read_rung(name: str, path: Path, options: Sequence[str], earlier: Sequence[Rung]) -> Rung:
    """One rung.

    Raises:
        UserError: its section ``ladder`` is wrong, or its test has not one context.
    """
    ladder = read_config(path, options).get("ladder")
    section = OmegaConf.to_container(ladder, resolve=True) if OmegaConf.is_config(ladder) else ladder
    if not isinstance(section, dict) or not isinstance(section.get("label"), str):
        raise UserError(
            f"{path}: ladder: found {section!r}, expected {{label: TEXT, start: RUNG, published: {{}}, "
            "tries: []}"
        )
    for key in section:
        if key not in SECTION:
            raise UserError(f"{path}: {unknown(f'ladder.{key}', key, SECTION)}")
    published = section.get("published") or {}
    if not isinstance(published, dict):
        raise UserError(f"{path}: ladder.published: found {published!r}, expected a mapping of figures")
    for key, value in published.items():
        if key not in PUBLISHED or isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(
                f"{path}: ladder.published.{key}: found {value!r}, expected numbers under "
                f"{', '.join(PUBLISHED)}"
            )
    tries = section.get("tries") or []
    if not isinstance(tries, list) or not all(isinstance(one, dict) for one in tries):
        raise UserError(
            f"{path}: ladder.tries: found {tries!r}, expected a list of values by dotted key, "
            "[{run.init_lr: 1.0e-3}]"
        )
    start = section.get("start") or ""
    before = {rung.name: rung for rung in earlier}
    if name in before:
        raise UserError(f"{path}: a second rung {name!r} beside {before[name].path}; rename one of them")
    if start and start not in before:
        raise UserError(f"{path}: {unknown('ladder.start', start, before, 'earlier rung')}")
    if start and before[start].only_evaluates:
        raise UserError(
            f"{path}: ladder.start: {start!r} only evaluates and has no weights of its own; name the rung "
            f"that it evaluates, {before[start].start!r}"
        )
    config = OmegaConf.to_container(load_run_config(path, options).config, resolve=True)
    contexts = config["run"].get("contexts")
    if not isinstance(contexts, list) or len(contexts) != 1:
        raise UserError(f"{path}: run.contexts: found {contexts!r}, one context expected: a rung is one row")
    if config["run"]["evaluate"] and not start:
        raise UserError(f"{path}: ladder.start: missing, the rung whose weights are evaluated was expected")
    return Rung(
        name=name,
        path=path,
        label=section["label"],
        start=start,
        begin=before[start].start if config["run"]["evaluate"] else start,
        published=published,
        config=config,
        options=tuple(options),
        tries=tuple(tries),
    )


def select_rungs(rungs: Sequence[Rung], only: Sequence[str]) -> list[Rung]:
    """The rungs that are named and those that they start from; all where none is named.

    Raises:
        UserError: a name that no rung has.
    """
    if not only:
        return list(rungs)
    by_name = {rung.name: rung for rung in rungs}
    wanted, names = set(), list(only)
    while names:
        name = names.pop()
        if name not in by_name:
            raise UserError(unknown("--only", name, by_name, "rung"))
        wanted.add(name)
        if start := by_name[name].start:
            names.append(start)
    return [rung for rung in rungs if rung.name in wanted]
