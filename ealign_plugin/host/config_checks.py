"""What is wrong with a config, in words: names, keys, types and ranges."""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from lavis.runners import RunnerBase, RunnerIter
from omegaconf import OmegaConf

from ealign_plugin.host.registration import registered_class, registered_names
from ealign_plugin.host.run_keys import (
    HOST_RUN_KEYS,
    LAVIS_RUN_KEYS,
    OTHER_NAMES,
    run_classes,
    run_defaults,
    run_ranges,
)
from ealign_plugin.validation import TYPE_NAMES, Choice, type_problem, unknown

MODEL_KEYS = ("arch", "model_type", "pretrained", "finetuned", "load_pretrained", "load_finetuned")


FAMILY_KEYS = ("CONFIG_KEYS", "OPTIONS", "SHAPE")
"""Attributes of a model family that name keys it reads, whether its default YAML has them or not."""


DATASET_KEYS = ("type", "data_type")


PROCESSORS = ("vis_processor", "text_processor")


def run_problems(config: Mapping[str, Any]) -> list[str]:
    run = config["run"]
    task, runner = run_classes(run)
    problems = []
    if "task" not in run:
        problems.append("run.task: missing, expected one of " + ", ".join(registered_names("task")))
    for key, cls, names in (
        ("task", task, registered_names("task")),
        ("runner", runner, registered_names("runner")),
        ("lr_sched", registered_class("lr_scheduler", run.get("lr_sched")), registered_names("lr_scheduler")),
    ):
        if key in run and cls is None:
            problems.append(unknown(f"run.{key}", run[key], names, what="name"))
    if task is None or runner is None:
        return problems  # their keys cannot be known

    types = {**LAVIS_RUN_KEYS, **HOST_RUN_KEYS}
    own = {**getattr(task, "RUN_KEYS", {}), **getattr(runner, "RUN_KEYS", {})}
    if declares_run_keys(task) and declares_run_keys(runner):
        known = {*types, *own}
        problems += [
            f"run.{key}: unknown key '{key}'; it is called {OTHER_NAMES[key]} here"
            if OTHER_NAMES.get(str(key), "") in known
            else unknown(f"run.{key}", key, known)
            for key in run
            if key not in known
        ]
    completed = {**run_defaults(run), **run}
    for key in required_run_keys(runner, bool(completed["evaluate"])):
        if completed.get(key) is None:
            problems.append(f"run.{key}: missing, expected {TYPE_NAMES[types[key]]}")
    # A default of the class says its type better than LAVIS's table, where it is given.
    defaults, ranges = run_defaults(run), run_ranges(run)
    for key, value in completed.items():
        expected = type(defaults[key]) if defaults.get(key) is not None else types.get(key)
        limits = ranges.get(key)
        any_type = isinstance(limits, Choice) or (limits is not None and bool(limits.words))
        problem = "" if any_type else type_problem(f"run.{key}", value, expected)
        if value is None and (limits is None or key not in defaults):
            problem = null_problem(f"run.{key}", defaults.get(key))
        elif limits and not problem:
            problem = limits.problem(f"run.{key}", value)
        problems += [problem] if problem else []
    ratios = run.get("train_dataset_ratios") or {}
    problems += [
        unknown(f"run.train_dataset_ratios.{name}", name, config["datasets"], what="data set")
        for name in ratios
        if name not in config["datasets"]
    ]
    problems += impossible_together(completed)
    problems += unread_lengths(run, runner)
    problems += split_problems(completed, config["datasets"])
    return problems


def null_problem(where: str, default: object) -> str:
    """What is wrong with null, in one line, where the default is something; empty where nothing is."""
    if default is None:
        return ""
    none = "; for none write []" if isinstance(default, list) else ""
    return f"{where}: found null, expected {TYPE_NAMES.get(type(default), 'a value')}{none}"


def impossible_together(run: Mapping[str, Any]) -> list[str]:
    """Values that are right alone and that no run can have beside each other.

    Args:
        run: The section with its defaults.
    """
    numbers = {
        key: value for key, value in run.items() if isinstance(value, int | float) and type(value) is not bool
    }
    problems = [
        f"run.{smaller}: found {numbers[smaller]}, expected at most run.{larger}, {numbers[larger]}"
        for smaller, larger in (("warmup_steps", "max_iters"), ("min_lr", "init_lr"), ("min_len", "max_len"))
        if smaller in numbers and larger in numbers and numbers[smaller] > numbers[larger]
    ]
    if run["evaluate"] is True and run["test_splits"] == []:
        problems.append(
            "run.test_splits: found none beside run.evaluate: true, expected what to test: [test]"
        )
    folder = Path(str(run["output_dir"])).expanduser()
    for path in (folder, *folder.parents):
        if path.is_file():
            problems.append(f"run.output_dir: {folder}: {path} is a file, expected a folder; name another")
    return problems


def unread_lengths(run: Mapping[str, Any], runner: type) -> list[str]:
    """A length of the training that this runner does not read: who sets it expects something else."""
    counts, other = (
        ("max_iters", "max_epoch") if issubclass(runner, RunnerIter) else ("max_epoch", "max_iters")
    )
    if run.get(other) is None or not issubclass(runner, RunnerBase):
        return []
    return [f"run.{other}: found {run[other]}, which {run.get('runner')} does not read; set run.{counts}"]


def split_problems(run: Mapping[str, Any], datasets: Mapping[str, Any]) -> list[str]:
    """Splits that ``run`` names and no data set gives; a foreign data set may give any."""
    given: set[str] = set()
    for name, section in datasets.items():
        cls = registered_class("builder", name)
        kind = section.get("type", "default") if isinstance(section, Mapping) else None
        if cls is None or not is_ours(cls) or kind not in cls.DATASET_CONFIG_DICT:
            return []
        splits = {**read_defaults(cls.default_config_path(kind))["datasets"][name], **section}.get("splits")
        if not isinstance(splits, list):
            return []
        given |= set(map(str, splits))
    problems = []
    for key in ("test_splits",) if run["evaluate"] else ("train_splits", "valid_splits", "test_splits"):
        # What is trained on never ends.
        expected = given & {"train"} if key == "train_splits" else given - {"train"}
        for split in run[key] if isinstance(run[key], list) else ():
            if split not in expected:
                problems.append(unknown(f"run.{key}", split, expected, what="split"))
    return problems


def declares_run_keys(cls: type) -> bool:
    """False for a foreign class that may read keys we cannot know."""
    return cls.__module__.startswith("lavis.") or hasattr(cls, "RUN_KEYS")


def required_run_keys(runner: type, evaluate: bool) -> list[str]:
    """What the stock runners read without a default."""
    keys = ["batch_size_eval"]
    if issubclass(runner, RunnerIter):
        keys += ["max_iters", "iters_per_inner_epoch"]
    elif issubclass(runner, RunnerBase):
        keys += ["max_epoch"]
    return keys if evaluate else [*keys, "batch_size_train", "init_lr"]


def model_problems(model: Mapping[str, Any]) -> list[str]:
    arch = model.get("arch")
    cls = registered_class("model", arch)
    if arch is None:
        return ["model.arch: missing, expected the name of a registered model, e.g. ealign_instructblip"]
    if cls is None:
        return [unknown("model.arch", arch, registered_names("model"), what="model")]
    if "model_type" not in model:
        return [f"model.model_type: missing, expected one of {', '.join(cls.PRETRAINED_MODEL_CONFIG_DICT)}"]
    if model["model_type"] not in cls.PRETRAINED_MODEL_CONFIG_DICT:
        return [
            unknown("model.model_type", model["model_type"], cls.PRETRAINED_MODEL_CONFIG_DICT, what="type")
        ]
    if not is_ours(cls):
        return []
    defaults = read_defaults(cls.default_config_path(model["model_type"]))["model"]
    read = {*MODEL_KEYS, *(key for name in FAMILY_KEYS for key in getattr(cls, name, ()))}
    return key_problems("model", model, defaults, read) + unread_weights({**defaults, **model})


def unread_weights(model: Mapping[str, Any]) -> list[str]:
    """Weights that are named and not loaded, so that the run would begin from others."""
    if not model.get("finetuned") or model.get("load_finetuned"):
        return []
    return [
        f"model.finetuned: {model['finetuned']} found beside model.load_finetuned: false, which leaves it "
        "unread; set load_finetuned: true, or leave finetuned out"
    ]


def dataset_problems(datasets: Mapping[str, Any]) -> list[str]:
    problems = [] if datasets else ["datasets: found none, expected at least one data set"]
    for name, section in datasets.items():
        where = f"datasets.{name}"
        cls = registered_class("builder", name)
        if cls is None:
            problems.append(unknown(where, name, registered_names("builder"), what="data set"))
            continue
        if not isinstance(section, Mapping):
            problems.append(
                f"{where}: found {section!r}, expected a mapping; write `{name}: {{}}` for the defaults"
            )
            continue
        kind = section.get("type", "default")
        if kind not in cls.DATASET_CONFIG_DICT:
            problems.append(unknown(f"{where}.type", kind, cls.DATASET_CONFIG_DICT, what="type"))
            continue
        if is_ours(cls):
            defaults = read_defaults(cls.default_config_path(kind))["datasets"][name]
            found = key_problems(where, section, defaults, {*DATASET_KEYS, *getattr(cls, "CONFIG_KEYS", {})})
            replaced = {f"{where}.{key}": advice for key, advice in getattr(cls, "REPLACED_KEYS", {}).items()}
            for problem in found:
                key = problem.partition(": ")[0]
                problems.append(f"{key}: {replaced[key]}" if key in replaced else problem)
        problems += processor_problems(where, section)
    return problems


def processor_problems(where: str, section: Mapping[str, Any]) -> list[str]:
    """The names under vis_processor.train.name and the like; their other keys belong to the processor."""
    problems = []
    for kind in PROCESSORS:
        for split, processor in (section.get(kind) or {}).items():
            name = processor.get("name") if isinstance(processor, Mapping) else None
            if registered_class("processor", name) is None:
                problems.append(
                    unknown(f"{where}.{kind}.{split}.name", name, registered_names("processor"), "processor")
                )
    return problems


def is_ours(cls: type) -> bool:
    """Whether a class reads just the keys of its default YAML: ours, and those that other packages derive."""
    return any(base.__module__.partition(".")[0] == "ealign_plugin" for base in cls.__mro__)


def read_defaults(path: str) -> dict[str, Any]:
    defaults = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(defaults, dict)
    return defaults


def key_problems(
    where: str, section: Mapping[str, Any], defaults: Mapping[str, Any], also: Set[str] = frozenset()
) -> list[str]:
    """Keys that the default YAML has not, and values of another type than there; recursive.

    Example:
        >>> key_problems("model", {"beem": 3}, {"beam": 5, "heads": 4})
        ["model.beem: unknown key 'beem'; did you mean 'beam'?"]
    """
    problems = []
    for key, value in section.items():
        key_path = f"{where}.{key}"
        if key in defaults:
            default = defaults[key]
            if default is not None:
                problem = type_problem(key_path, value, type(default))
                problems += [problem] if problem else []
            is_open = default == {} or key in PROCESSORS
            if isinstance(default, Mapping) and isinstance(value, Mapping) and not is_open:
                problems += key_problems(key_path, value, default)
        elif key not in also:
            problems.append(unknown(key_path, key, {*map(str, defaults), *also}))
    return problems
