"""Data set builders, registered with LAVIS: thin adapters around `ealign_plugin.data.datasets`."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TextIO

import torch.distributed as dist
from lavis.common.dist_utils import get_rank, get_world_size, is_main_process
from lavis.datasets.builders.base_dataset_builder import BaseDatasetBuilder
from omegaconf import OmegaConf
from upath import UPath

from ealign_plugin.alignment.mixture import WORDS_MOVED
from ealign_plugin.data.datasets import NewsDatasets
from ealign_plugin.data.defaults import CONFIGS, DATASETS, DatasetDescription, base_of, dataset_defaults
from ealign_plugin.data.shards.index import ShardIndex
from ealign_plugin.data.streams.mixing import TaskMixer
from ealign_plugin.entities import load_ner
from ealign_plugin.errors import UserError
from ealign_plugin.host.cache import cache_root
from ealign_plugin.host.registration import (
    current_run,
    refresh_catalogues,
    registered,
    registered_class,
    registered_names,
)
from ealign_plugin.micronews.make import make_micronews
from ealign_plugin.validation import unknown


@registered("builder", "ealign_news")
class NewsBuilder(BaseDatasetBuilder):
    """Any folder of this project's shards: ``train`` as an endless stream, ``val`` and ``test`` as lists.

    The stream's order and mix are a function of ``seed``; every ``batch_size`` examples in a row hold the
    recipe's mix (by default those of a batch: ``run.batch_size_train``).
    """

    NAME: ClassVar[str] = "ealign_news"
    DATASET_CONFIG_DICT: ClassVar[dict[str, str]] = {"default": str(CONFIGS / "ealign_news.yaml")}
    REPLACED_KEYS: ClassVar[dict[str, str]] = {"recipe.words": WORDS_MOVED}
    SOURCE: ClassVar[str] = ""
    """Reader of `ealign prepare` whose shards are looked for in the cache where no folder is configured."""

    @classmethod
    def default_config_path(cls, type: str = "default") -> str | TextIO:  # noqa: A002  LAVIS's name
        """What LAVIS loads as the defaults: the YAML's path, or its text laid over that of its base."""
        path = cls.DATASET_CONFIG_DICT[type]
        if base_of(Path(path)) is None:
            return path
        return io.StringIO(OmegaConf.to_yaml(dataset_defaults(Path(path))))

    def build_datasets(self) -> dict[str, Any]:
        """The data sets of the splits that the shards have.

        Raises:
            UserError: a mistake in the config, before any shard is made; or shards that cannot be read.
        """
        self.datasets.check()  # before shards are made
        if is_main_process():
            self.prepare()
        if dist.is_available() and dist.is_initialized():
            dist.barrier()
        return self.build()

    @cached_property
    def datasets(self) -> NewsDatasets:
        """The plain data sets that this builder owns."""
        values: Any = OmegaConf.to_container(self.config, resolve=True)
        return NewsDatasets(
            self.NAME,
            values,
            run=current_run(),
            text_processor=text_processor(self.NAME, values),
            source=self.SOURCE,
            cache=cache_root(),
            defaults=self.DATASET_CONFIG_DICT["default"],
        )

    @property
    def mixer(self) -> TaskMixer:
        """Recipe, phases, wording and budget."""
        return self.datasets.mixer

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that the config asks for."""
        return self.datasets.splits

    def prepare(self) -> None:
        """Make the shards where they can be made; called in one process, before the others read."""

    def folder(self) -> Path | UPath:
        """The folder of shards; see `NewsDatasets.folder`."""
        return self.datasets.folder()

    def build(self) -> dict[str, Any]:
        """Read the index and lay out the splits; nothing is decoded yet."""
        self.build_processors()
        index = ShardIndex.load(self.folder())
        load_ner(index.ner["name"])  # an evaluation needs the same model: fail before the training
        return dict(
            self.datasets.build(
                index,
                train_processor=self.vis_processors["train"],
                eval_processor=self.vis_processors["eval"],
                rank=get_rank(),
                world_size=get_world_size(),
            )
        )


def text_processor(name: str, section: Mapping[str, Any]) -> Callable[[str], str]:
    """The one text processor of a data set, for training and test.

    Raises:
        UserError: two are configured, or there is none of this name.
    """
    configured = section.get("text_processor") or {}
    train = configured.get("train") or {"name": "ealign_text"}
    if (evaluation := configured.get("eval") or train) != train:
        raise UserError(
            f"datasets.{name}.text_processor: train {train} and eval {evaluation} were found, the same "
            "expected: the model must be asked at test what it was asked in training; set both alike"
        )
    cls = registered_class("processor", train["name"])
    if cls is None:
        raise UserError(
            unknown(
                f"datasets.{name}.text_processor.train.name",
                train["name"],
                registered_names("processor"),
                "processor",
            )
        )
    return cls.from_config(OmegaConf.create(train))


@registered("builder", "ealign_micronews")
class MicroNewsBuilder(NewsBuilder):
    """MicroNews, the embedded world; its shards are made on first use."""

    NAME: ClassVar[str] = "ealign_micronews"
    DATASET_CONFIG_DICT: ClassVar[dict[str, str]] = {"default": str(CONFIGS / "ealign_micronews.yaml")}

    def prepare(self) -> None:
        """Make the shards where they are missing or were made with other options."""
        world = self.config.world
        make_micronews(
            self.folder(),
            articles=dict(world.articles),
            kind=world.kind,
            seed=world.seed,
            size=world.size,
            ner=world.ner,
        )

    def folder(self) -> Path:
        """The configured folder, else one in the cache, named by the world: two runs may need two worlds."""
        if storage := self.config.build_info.get(self.data_type).storage:
            return Path(storage).expanduser()
        world = json.dumps(OmegaConf.to_container(self.config.world, resolve=True), sort_keys=True)
        digest = hashlib.sha256(world.encode()).hexdigest()[:6]
        return cache_root() / f"micronews-{self.config.world.seed}-{digest}"


@registered("builder", "ealign_micronews_closed")
class ClosedMicroNewsBuilder(MicroNewsBuilder):
    """The first world of MicroNews, in which every name is known."""

    NAME: ClassVar[str] = "ealign_micronews_closed"
    DATASET_CONFIG_DICT: ClassVar[dict[str, str]] = {"default": str(CONFIGS / "ealign_micronews_closed.yaml")}


OF_THEIR_OWN = ("ealign_news", "ealign_micronews", "ealign_micronews_closed")
"""Data sets with a class of their own above."""


def join(name: str, description: DatasetDescription) -> None:
    """Register a builder with LAVIS for a data set that is only a YAML.

    The class is an attribute of this module under its registered name, by which pickle finds it again.
    """
    if name in OF_THEIR_OWN:
        return
    namespace = {
        "__module__": __name__,
        "__qualname__": name,
        "__doc__": f"{name}: the head of its YAML says what to download and how to make the shards.",
        "NAME": name,
        "DATASET_CONFIG_DICT": {"default": str(description.path)},
        "SOURCE": description.source,
    }
    builder = registered("builder", name)(type(name, (NewsBuilder,), namespace))
    setattr(sys.modules[__name__], name, builder)
    refresh_catalogues()  # a data set of another package comes after LAVIS made its list


DATASETS.subscribe(join)
