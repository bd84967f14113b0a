"""The data sets of a dry run: what the shards hold, what would be made, and what does not fit the run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from omegaconf import DictConfig

from ealign_plugin.alignment.tasks import TASKS
from ealign_plugin.cli.dry_run.problems import collected
from ealign_plugin.data.shards.index import ShardIndex
from ealign_plugin.data.streams.batches import check_weights
from ealign_plugin.data.streams.mixing import TaskMixer, task_quota
from ealign_plugin.entities import load_ner
from ealign_plugin.host.registration import registered_class
from ealign_plugin.host.run import counts_steps
from ealign_plugin.inference.controls.names import OF_ANOTHER_PHOTO
from ealign_plugin.micronews.make import PHOTOS_PER_ARTICLE, existing, world_options
from ealign_plugin.models.base import NewsModel
from ealign_plugin.registered.builders import MicroNewsBuilder, NewsBuilder
from ealign_plugin.registered.task import NewsCaptioning
from ealign_plugin.training.own_selections import check_batch_size


@dataclass
class DataSet:
    """A data set of the run.

    Args:
        name: Of its builder.
        builder: None for one of another package, which is not looked into.
        location: Where it is, or what becomes of it.
        samples: Photos of each split that is used, as far as they are known.
        ner: The model that found its entities, with its version.
    """

    name: str
    builder: NewsBuilder | None = None
    location: str = "of another package; it is not looked into"
    samples: dict[str, int] = field(default_factory=dict)
    ner: str = ""


def check_data_set(name: str, section: DictConfig, problems: list[str]) -> DataSet:
    """What a data set holds; whatever is wrong with it is among the problems."""
    cls = registered_class("builder", name)
    if not issubclass(cls, NewsBuilder):
        return DataSet(name)
    builder = cls(section)
    data_set = DataSet(name, builder)
    with collected(problems):
        builder.datasets.check()
    with collected(problems):
        builder.build_processors()
    with collected(problems):
        splits = builder.splits
        if isinstance(builder, MicroNewsBuilder):
            read_micronews(builder, data_set)
        else:
            index = ShardIndex.load(builder.folder())
            data_set.location, data_set.ner = str(index.folder), index.ner["name"]
            data_set.samples = {split: index.samples(split) for split in index.shards}
            load_ner(data_set.ner)
        limits = builder.datasets.limits
        data_set.samples = {
            split: min(count, limits.get(split) or count) if split != "train" else count
            for split, count in data_set.samples.items()
            if split in splits
        }
    return data_set


def read_micronews(builder: MicroNewsBuilder, data_set: DataSet) -> None:
    """What there is of it, or what would be made."""
    world, folder = builder.config.world, builder.folder().resolve()
    ner = load_ner(world.ner)
    data_set.ner = ner.name
    options = world_options(articles=dict(world.articles), kind=world.kind, seed=world.seed, size=world.size)
    made = existing(folder, options, {"name": ner.name, "version": ner.version})
    data_set.location = str(folder) if made else f"{folder}: will be made (about a minute)"
    data_set.samples = {split: PHOTOS_PER_ARTICLE[world.kind] * n for split, n in world.articles.items()}


def run_problems(run: Mapping[str, Any], sets: Sequence[DataSet]) -> list[str]:
    """What ``run`` asks of the data sets and they do not give."""
    problems: list[str] = []
    ours = [one for one in sets if one.builder is not None]
    train = [one.name for one in sets if one.builder is None or "train" in one.samples]
    known = all(one.samples for one in sets)  # else a split may be in what could not be read
    if not run["evaluate"] and known and not train:
        problems.append("datasets: none of them has the split 'train'; add one that has, or set run.evaluate")
    if not run["evaluate"] and known and train:
        with collected(problems):
            check_weights(dict.fromkeys(train), run.get("train_dataset_ratios"))
    if not run["evaluate"] and ours and not counts_steps(run["runner"]):
        problems.append(
            f"run.runner: {run['runner']} found, which counts epochs of data that end; the stream of "
            f"{ours[0].name} is endless: ealign_runner or runner_iter expected"
        )
    if not run["evaluate"] and run.get("own_selections_from"):
        for one in ours:
            with collected(problems):
                assert one.builder is not None
                check_batch_size(one.name, one.builder.mixer.batch_size, int(run["batch_size_train"]))
    for key in ("valid_splits", "test_splits"):
        for split in run[key] or ():
            names = [one.name for one in sets if one.samples.get(split)]
            if not names and known:
                problems.append(f"run.{key}: no data set has photos of the split {split!r}")
            if len(names) > 1:
                problems.append(
                    f"run.{key}: {split!r} found in {', '.join(names)}, one data set expected; leave it "
                    f"out of the others by datasets.{names[-1]}.splits"
                )
    asks = other_photo_asked(run) if issubclass(registered_class("task", run["task"]), NewsCaptioning) else ""
    if asks:
        problems += [
            f"{asks} found, and datasets.{one.name}.other_image is false; set it to true"
            for one in ours
            if any(split in one.samples for split in run["test_splits"] or ())
            and one.builder
            and not one.builder.config.get("other_image")
        ]
    return problems


def other_photo_asked(run: Mapping[str, Any]) -> str:
    """The key and value that need another article's photo of each sample; empty where none does."""
    if run["shuffled_images"]:
        return "run.shuffled_images: true"
    name = next((name for name in run["controls"] or () if name in OF_ANOTHER_PHOTO), None)
    return f"run.controls: {name}" if name else ""


def size_problems(model: NewsModel, sets: Sequence[DataSet]) -> list[str]:
    """Pictures of another size than the model's."""
    expected = model.config.vision_config.image_size
    return [
        f"datasets.{one.name}.vis_processor.{kind}.image_size: {found} found, {expected} expected, as the "
        "model's"
        for one in sets
        for kind, processor in (one.builder.vis_processors.items() if one.builder else ())
        if (found := getattr(processor, "image_size", expected)) != expected
    ]


def samples_read(mixer: TaskMixer, batches: int) -> int:
    """About how many samples the stream reads for so many batches, where each can give every task.

    Of each phase the first hundred batches are counted. Each time that a sample is read it gives a caption,
    a list of names and the sentences that come together, as far as the batch still lacks them.
    """
    bounds = sorted({0, batches, *(phase["until"] for phase in mixer.phases if phase["until"] < batches)})
    total = 0.0
    for first, last in pairwise(bounds):
        recipe, remainder, counted = mixer.recipe_at(first), dict.fromkeys(TASKS, 0.0), min(100, last - first)
        gives = {name: task.examples_at_once(recipe) for name, task in TASKS.items()}
        seen = 0
        for _ in range(counted):
            quota = task_quota(recipe, mixer.batch_size, remainder)
            seen += max(math.ceil(quota[task] / gives[task]) for task in TASKS)
        total += seen * (last - first) / counted
    return round(total)
