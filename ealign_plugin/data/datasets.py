"""The data sets of a folder of shards, made from a section of a config; without LAVIS.

::

    section of the config ──► mixer (recipe, phases, wording, budget)
                              splits, folder of shards
    folder ──► index.json ──► train: TrainingStream   val, test: EvaluationSamples
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from upath import UPath

from ealign_plugin.alignment.contexts import DEFAULT_CONTEXT_WORDS, DEFAULT_USUAL_CONTEXT
from ealign_plugin.alignment.mixture import TaskMixture
from ealign_plugin.alignment.prompts import Templates, Wording
from ealign_plugin.data.shards.index import ShardIndex
from ealign_plugin.data.shards.read import ImageProcessor
from ealign_plugin.data.streams.evaluation import EvaluationSamples
from ealign_plugin.data.streams.mixing import TaskMixer
from ealign_plugin.data.streams.training import TrainingStream, training_stream
from ealign_plugin.errors import UserError
from ealign_plugin.files import as_path
from ealign_plugin.news import ALL_SPLITS
from ealign_plugin.validation import Number, unknown

COUNTS = Number(least=1, whole=True)
RANGES = {
    "batch_size": Number(least=1, most=1_000_000, whole=True, allow_none=True),
    "seed": Number(least=0, whole=True, allow_none=True),
    "shuffle_shards": COUNTS,
    "max_skipped": Number(least=0, most=1),
}
"""What the numbers of a section may be."""

EVALUATED = tuple(split for split in ALL_SPLITS if split != "train")
"""What can be limited: the stream of a training has no end."""


class NewsDatasets:
    """What a section ``datasets.<name>`` of a config describes.

    Args:
        name: Name of the data set, for messages.
        section: Its section, completed with the defaults, as plain values.
        run: Keys of the section ``run`` that the data depend on: ``batch_size_train``, ``seed``,
            ``context_words``, ``context_tokens``, ``usual_context``, ``usual_words``; each has its default.
        text_processor: Acts on the texts of the data, in training and at test.
        source: Reader of ``ealign prepare`` whose shards are looked for in the cache where no folder is
            configured; empty: none.
        cache: Folder of the cache.
        defaults: File of the data set's defaults, for messages.
    """

    def __init__(
        self,
        name: str,
        section: Mapping[str, Any],
        *,
        run: Mapping[str, Any],
        text_processor: Callable[[str], str],
        source: str = "",
        cache: Path,
        defaults: str = "",
    ) -> None:
        self.name, self.section, self.run = name, section, run
        self.text_processor, self.source, self.cache, self.defaults = text_processor, source, cache, defaults

    @cached_property
    def mixer(self) -> TaskMixer:
        """Recipe, phases, wording and budget.

        Raises:
            UserError: a mistake in one of them.
        """
        values, run = self.section, self.run
        return TaskMixer(
            recipe=TaskMixture().changed(values["recipe"]),
            wording=Wording(Templates().changed(values["templates"]), self.text_processor),
            batch_size=values["batch_size"] or run.get("batch_size_train", 32),
            seed=values["seed"] if values["seed"] is not None else run.get("seed", 0),
            phases=values["phases"],
            context_words=run.get("context_words", DEFAULT_CONTEXT_WORDS),
            context_tokens=run.get("context_tokens"),
            usual_context=run.get("usual_context", DEFAULT_USUAL_CONTEXT),
            usual_words=run.get("usual_words"),
        )

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """The splits that the config asks for.

        Raises:
            UserError: one that there is not.
        """
        splits = tuple(self.section.get("splits") or ALL_SPLITS)
        for split in splits:
            if split not in ALL_SPLITS:
                raise UserError(
                    f"datasets.{self.name}.splits: one of {', '.join(ALL_SPLITS)} was expected, found "
                    f"{split!r}"
                )
        return splits

    def check(self) -> None:
        """Refuse what would fail, or be ignored, after the shards are made.

        Raises:
            UserError: a mistake in the section.
        """
        for key, limits in RANGES.items():
            limits.check(f"datasets.{self.name}.{key}", self.section[key])
        self.mixer, self.splits, self.half, self.limits  # noqa: B018  each refuses its own

    @cached_property
    def limits(self) -> Mapping[str, int]:
        """Split → so many of its samples are read; of the others all.

        Raises:
            UserError: a split that cannot be limited, or no count.
        """
        limits: Mapping[str, int] = self.section["limit"] or {}
        for split, count in limits.items():
            if split not in EVALUATED:
                raise UserError(unknown(f"datasets.{self.name}.limit", split, EVALUATED, "split"))
            COUNTS.check(f"datasets.{self.name}.limit.{split}", count)
        return limits

    @cached_property
    def half(self) -> int | None:
        """The half of the articles that is trained on; None: both.

        Raises:
            UserError: neither 0 nor 1.
        """
        half = self.section.get("half")
        if half is not None and (type(half) is not int or half not in (0, 1)):
            raise UserError(f"datasets.{self.name}.half: 0, 1 or null was expected, found {half!r}")
        return half

    def folder(self) -> Path | UPath:
        """The configured folder (a relative path starts at the working directory), else that in the cache.

        Raises:
            UserError: none is configured, and there is none in the cache.
        """
        data_type = self.section["data_type"]
        storage = self.section["build_info"][data_type]["storage"]
        if storage:
            return as_path(storage)
        key = f"datasets.{self.name}.build_info.{data_type}.storage"
        if not self.source:
            raise UserError(f"{key}: no folder of shards given; set it to a folder that holds index.json")
        folder = self.cache / self.source
        if not folder.is_dir():
            raise UserError(
                f"{key}: empty, and there is no {folder}; make the shards by `ealign prepare {self.source} "
                f"PATH --images PHOTOS --out {folder}` (the head of {self.defaults} says what to download), "
                "or set it to a folder of shards"
            )
        return folder

    def build(
        self,
        index: ShardIndex,
        *,
        train_processor: ImageProcessor,
        eval_processor: ImageProcessor,
        rank: int = 0,
        world_size: int = 1,
    ) -> dict[str, TrainingStream | EvaluationSamples]:
        """Split → data set; nothing is decoded yet.

        Args:
            index: The shards of `folder`.
            train_processor: PIL picture → tensor [3, H, W], for training.
            eval_processor: The same for validation and test.
            rank: Number of this process.
            world_size: So many processes train.

        Raises:
            UserError: a shard is not what its index says.
        """
        datasets: dict[str, TrainingStream | EvaluationSamples] = {}
        for split, shards in index.shards.items():
            if split not in self.splits:
                continue
            if split == "train":
                datasets[split] = training_stream(
                    shards,
                    self.mixer,
                    image_processor=train_processor,
                    window=self.section["shuffle_shards"],
                    rank=rank,
                    world_size=world_size,
                    max_skipped=self.section["max_skipped"],
                    half=self.half,
                )
            else:
                datasets[split] = EvaluationSamples(
                    index,
                    split,
                    image_processor=eval_processor,
                    wording=self.mixer.wording,
                    tasks=self.mixer.trained_tasks(),
                    limit=self.limits.get(split),
                    other_image=self.section["other_image"],
                )
        return datasets
