"""Data set builders, registered with LAVIS."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch.distributed as dist
from lavis.common.dist_utils import get_rank, get_world_size, is_main_process
from lavis.common.registry import registry
from lavis.datasets.builders.base_dataset_builder import BaseDatasetBuilder
from omegaconf import OmegaConf
from upath import UPath

from ealign_plugin.alignment.contexts import DEFAULT_CONTEXT_WORDS
from ealign_plugin.alignment.mixture import TaskMixture
from ealign_plugin.alignment.prompts import Templates, Wording
from ealign_plugin.data.shards.index import ShardIndex
from ealign_plugin.data.streams.evaluation import EvaluationSamples
from ealign_plugin.data.streams.mixing import TaskMixer
from ealign_plugin.data.streams.training import training_stream
from ealign_plugin.entities import load_ner
from ealign_plugin.errors import UserError
from ealign_plugin.files import as_path
from ealign_plugin.host.cache import cache_root
from ealign_plugin.host.registration import registered
from ealign_plugin.micronews.make import make_micronews
from ealign_plugin.news import SPLITS
from ealign_plugin.validation import unknown

CONFIGS = Path(__file__).parents[1] / "configs" / "datasets"


@registered("builder", "ealign_news")
class NewsBuilder(BaseDatasetBuilder):
    """Any folder of this project's shards: ``train`` as an endless stream, ``val`` and ``test`` as lists.

    The stream's order and mix are a function of ``seed``; every ``batch_size`` examples in a row hold the
    recipe's mix (by default those of a batch: ``run.batch_size_train``).
    """

    DATASET_CONFIG_DICT = {"default": str(CONFIGS / "ealign_news.yaml")}
    SOURCE = ""
    """Reader of `ealign prepare` whose shards are looked for in the cache where no folder is configured."""

    def build_datasets(self) -> dict[str, Any]:
        """The data sets of the splits that the shards have.

        Raises:
            UserError: a mistake in the config, told before any shard is made; or shards that cannot be read.
        """
        self.mixer, self.splits  # noqa: B018  their mistakes are told before shards are made
        if is_main_process():
            self.prepare()
        if dist.is_available() and dist.is_initialized():
            dist.barrier()
        return self.build()

    @cached_property
    def mixer(self) -> TaskMixer:
        """What the config says of recipe, phases and templates."""
        values: dict[str, Any] = OmegaConf.to_container(self.config, resolve=True)
        run = getattr(registry.get("configuration", no_warning=True), "run_cfg", {})
        return TaskMixer(
            recipe=TaskMixture().changed(values["recipe"]),
            wording=Wording(Templates().changed(values["templates"]), self._text_processor(values)),
            batch_size=values["batch_size"] or run.get("batch_size_train", 32),
            seed=values["seed"] if values["seed"] is not None else run.get("seed", 0),
            phases=values["phases"],
            context_words=run.get("context_words", DEFAULT_CONTEXT_WORDS),
            context_tokens=run.get("context_tokens"),
        )

    def _text_processor(self, values: Mapping[str, Any]) -> Callable[[str], str]:
        """The one text processor of training and test.

        Raises:
            UserError: two are configured, or there is none of this name.
        """
        section = values.get("text_processor") or {}
        train = section.get("train") or {"name": "ealign_text"}
        if (evaluation := section.get("eval") or train) != train:
            raise UserError(
                f"datasets.<name>.text_processor: train {train} and eval {evaluation} were found, the same "
                "expected: the model must be asked at test what it was asked in training; set both alike"
            )
        cls = registry.get_processor_class(train["name"])
        if cls is None:
            raise UserError(
                unknown(
                    "datasets.<name>.text_processor.train.name",
                    train["name"],
                    registry.list_processors(),
                    "processor",
                )
            )
        return cls.from_config(OmegaConf.create(train))

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """The splits that the config asks for, of those that the shards have."""
        splits = tuple(self.config.get("splits") or SPLITS)
        for split in splits:
            if split not in SPLITS:
                raise UserError(
                    f"datasets.<name>.splits: one of {', '.join(SPLITS)} was expected, found {split!r}"
                )
        return splits

    def prepare(self) -> None:
        """Make the shards where they can be made; called in one process, before the others read."""

    def folder(self) -> Path | UPath:
        """The configured folder (a relative path starts at the working directory), else that in the cache.

        Raises:
            UserError: none is configured, and there is none in the cache.
        """
        storage = self.config.build_info.get(self.data_type).storage
        if storage:
            return as_path(storage)
        key = f"datasets.ealign_{self.SOURCE or 'news'}.build_info.{self.data_type}.storage"
        if not self.SOURCE:
            raise UserError(f"{key}: no folder of shards given; set it to a folder that holds index.json")
        folder = cache_root() / self.SOURCE
        if not folder.is_dir():
            raise UserError(
                f"{key}: empty, and there is no {folder}; make the shards by `ealign prepare {self.SOURCE} "
                f"PATH --images PHOTOS --out {folder}` (the head of {self.DATASET_CONFIG_DICT['default']} "
                "says what to download), or set it to a folder of shards"
            )
        return folder

    def build(self) -> dict[str, Any]:
        """Read the index and lay out the splits; nothing is decoded yet."""
        self.build_processors()
        index = ShardIndex.load(self.folder())
        load_ner(index.ner["name"])  # whoever evaluates needs the same model: say so before the training
        datasets: dict[str, Any] = {}
        for split, shards in index.shards.items():
            if split not in self.splits:
                continue
            if split == "train":
                datasets[split] = training_stream(
                    shards,
                    self.mixer,
                    image_processor=self.vis_processors["train"],
                    window=self.config.shuffle_shards,
                    rank=get_rank(),
                    world_size=get_world_size(),
                    max_skipped=self.config.max_skipped,
                )
            else:
                datasets[split] = EvaluationSamples(
                    index,
                    split,
                    image_processor=self.vis_processors["eval"],
                    wording=self.mixer.wording,
                    tasks=self.mixer.trained_tasks(),
                    limit=self.config.limit.get(split),
                    other_image=split == "test" and self.config.other_image,
                )
        return datasets


@registered("builder", "ealign_goodnews")
class GoodNewsBuilder(NewsBuilder):
    """GoodNews; the head of its YAML says what to download and how to make the shards."""

    DATASET_CONFIG_DICT = {"default": str(CONFIGS / "ealign_goodnews.yaml")}
    SOURCE = "goodnews"


@registered("builder", "ealign_nytimes800k")
class NYTimes800kBuilder(NewsBuilder):
    """NYTimes800k; the head of its YAML says what to download and how to make the shards."""

    DATASET_CONFIG_DICT = {"default": str(CONFIGS / "ealign_nytimes800k.yaml")}
    SOURCE = "nytimes800k"


@registered("builder", "ealign_visualnews")
class VisualNewsBuilder(NewsBuilder):
    """VisualNews; the head of its YAML says what to download and how to make the shards."""

    DATASET_CONFIG_DICT = {"default": str(CONFIGS / "ealign_visualnews.yaml")}
    SOURCE = "visualnews"


@registered("builder", "ealign_micronews")
class MicroNewsBuilder(NewsBuilder):
    """MicroNews, the embedded world; its shards are made on first use."""

    DATASET_CONFIG_DICT = {"default": str(CONFIGS / "ealign_micronews.yaml")}

    def prepare(self) -> None:
        """Make the shards where they are missing or were made with other options."""
        world = self.config.world
        make_micronews(
            self.folder(), articles=dict(world.articles), seed=world.seed, size=world.size, ner=world.ner
        )

    def folder(self) -> Path:
        """The configured folder, else one in the cache, named by the world: two runs may need two worlds."""
        if storage := self.config.build_info.get(self.data_type).storage:
            return Path(storage).expanduser()
        world = json.dumps(OmegaConf.to_container(self.config.world, resolve=True), sort_keys=True)
        digest = hashlib.sha256(world.encode()).hexdigest()[:6]
        return cache_root() / f"micronews-{self.config.world.seed}-{digest}"
