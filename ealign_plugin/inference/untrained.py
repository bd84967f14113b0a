"""Does a test read more than the training ever did? Found from the configs, before anything is computed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ealign_plugin.alignment.contexts import CONTEXTS, Budget
from ealign_plugin.alignment.coverage import parts_of, parts_of_all
from ealign_plugin.alignment.mixture import TaskMixture
from ealign_plugin.errors import UserError
from ealign_plugin.inference.options import defaults
from ealign_plugin.news import SPLITS
from ealign_plugin.training.checkpoints.manifest import MANIFEST, read_checkpoint

Config = Mapping[str, Any]


def untrained_reading(config: Config, weights: Path | None = None) -> list[str]:
    """What the contexts of a test show and no context of the training did, a line each.

    Args:
        config: ``model``, ``datasets`` and ``run``, resolved and complete.
        weights: Those that are tested, where the run only tests; their checkpoint says how they were trained.

    Returns:
        Lines that name the key, what was found there and what to do; none where it is not known how the
        weights were trained, as of data sets of other packages.
    """
    trainings = list(_trainings(config, weights))
    names = [_trained_contexts(training) for training in trainings]
    known = [strategies for strategies in names if strategies is not None]
    if not trainings or len(known) < len(names):
        return []
    run = {**defaults(), **config["run"]}
    budget, trained = _budget(run, run), sorted(set().union(*known))
    covered = frozenset[str]().union(
        *(
            parts_of_all(strategies, _budget(run, {**defaults(), **training["run"]}))
            for strategies, training in zip(known, trainings, strict=True)
        )
    )
    lines = _longer_budget(run, trainings)
    keys = ["contexts", "caption_loss"] if run["test_splits"] else []
    if run.get("valid_splits") and weights is None:
        keys += ["valid_contexts"]
    for key in keys:
        for strategy in run[key] or ():
            if more := parts_of(strategy, budget) - covered:
                lines.append(
                    f"run.{key}: found {strategy}, which reads {' and '.join(sorted(more))}; no caption of "
                    f"the training did (datasets.<name>.recipe.contexts, phases included: "
                    f"{', '.join(trained) or 'none'}); give {strategy} a share there, or leave it out here"
                )
    return lines


def _trainings(config: Config, weights: Path | None) -> Iterator[Config]:
    """The configs of the trainings behind the tested weights, the last first, as far as manifests tell."""
    seen: set[Path] = set()
    now: Config | None = config if weights is None else _config_of(weights)
    while now is not None:
        yield now
        model = now.get("model") or {}
        start = Path(str(model.get("finetuned") or "")).expanduser()
        if not model.get("load_finetuned") or start in seen:
            return
        seen.add(start)
        now = _config_of(start)


def _config_of(weights: Path) -> Config | None:
    """The config in the manifest beside weights; None where there is none."""
    try:
        return (
            read_checkpoint(weights.parent).manifest["config"]
            if (weights.parent / MANIFEST).is_file()
            else None
        )
    except UserError:
        return None


def _trained_contexts(config: Config) -> set[str] | None:
    """The contexts that captions are trained in; None where a data set does not say it."""
    names: set[str] = set()
    if {**defaults(), **config["run"]}["usual_context"] not in CONTEXTS:  # of a package that is not here
        return None
    for section in (config.get("datasets") or {}).values():
        if "train" not in (section.get("splits") or SPLITS):
            continue
        if "recipe" not in section:
            return None
        phases = [dict(phase) for phase in section.get("phases") or ()]
        for phase in phases:
            phase.pop("until", None)
        try:
            recipe = TaskMixture().changed(section["recipe"])
            recipes = [recipe, *map(recipe.changed, phases)]
        except UserError:  # of another version, or of a package that is not here
            return None
        for one in recipes:
            if one.tasks.get("caption"):
                names |= {name for name, share in one.contexts.items() if share}
    return names if config.get("datasets") else None


def _longer_budget(run: Config, trainings: list[Config]) -> list[str]:
    """A line where the budget is longer than that of each training."""
    key = "context_words" if run["context_tokens"] is None else "context_tokens"
    before = [{**defaults(), **training["run"]} for training in trainings]
    same_unit = [
        one[key] for one in before if (one["context_tokens"] is None) == (run["context_tokens"] is None)
    ]
    if len(same_unit) < len(before) or run[key] <= max(same_unit):
        return []
    return [
        f"run.{key}: found {run[key]}, the training read at most {max(same_unit)}; train with the longer "
        "budget, or lower it here"
    ]


def _budget(run: Config, usual_of: Config) -> Budget:
    """The number that the test reads, with the usual context of a run."""
    number = run["context_words"] if run["context_tokens"] is None else run["context_tokens"]
    return Budget(number, usual=usual_of["usual_context"])
