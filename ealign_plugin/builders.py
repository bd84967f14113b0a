"""Data set builders, registered with LAVIS."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import torch.distributed as dist
from lavis.common.dist_utils import get_rank, get_world_size, is_main_process
from lavis.common.registry import registry
from lavis.datasets.builders.base_dataset_builder import BaseDatasetBuilder
from omegaconf import OmegaConf

from ealign_plugin.alignment.instructions import Recipe, Templates
from ealign_plugin.entities import load_ner
from ealign_plugin.errors import UserError
from ealign_plugin.host.cache import cache_root
from ealign_plugin.host.registration import registered
from ealign_plugin.micronews.make import make_micronews
from ealign_plugin.shards.index import ShardIndex
from ealign_plugin.shards.stream import EvaluationSamples, TaskMixer, training_stream

CONFIGS = Path(__file__).parent / "configs" / "datasets"


@registered("builder", "ealign_news")
class NewsBuilder(BaseDatasetBuilder):
    """Any folder of this project's shards: ``train`` as an endless stream, ``val`` and ``test`` as lists.

    The stream's order and mix are a function of ``seed``; every ``batch_size`` examples in a row hold the
    recipe's mix (by default those of a batch: ``run.batch_size_train``).
    """

    DATASET_CONFIG_DICT = {"default": str(CONFIGS / "ealign_news.yaml")}

    def build_datasets(self) -> dict[str, Any]:
        """The data sets of the splits that the shards have.

        Raises:
            UserError: a mistake in the config, told before any shard is made; or shards that cannot be read.
        """
        self.mixer  # noqa: B018  its mistakes are told before shards are made
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
            recipe=Recipe().changed(values["recipe"]),
            templates=Templates().changed(values["templates"]),
            batch_size=values["batch_size"] or run.get("batch_size_train", 32),
            seed=values["seed"] if values["seed"] is not None else run.get("seed", 0),
            phases=values["phases"],
        )

    def prepare(self) -> None:
        """Make the shards where they can be made; called in one process, before the others read."""

    def folder(self) -> Path:
        """The folder of shards; a relative path starts at the working directory."""
        storage = self.config.build_info.get(self.data_type).storage
        if not storage:
            raise UserError(
                "datasets.ealign_news.build_info.images.storage: no folder of shards given; "
                "set it to a folder that holds index.json"
            )
        return Path(storage).expanduser()

    def build(self) -> dict[str, Any]:
        """Read the index and lay out the splits; nothing is decoded yet."""
        self.build_processors()
        index = ShardIndex.load(self.folder())
        load_ner(index.ner["name"])  # whoever evaluates needs the same model: say so before the training
        datasets: dict[str, Any] = {}
        for split, shards in index.shards.items():
            if split == "train":
                self.mixer.text_processor = self.text_processors["train"]
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
                    templates=self.mixer.templates,
                    limit=self.config.limit.get(split),
                    other_image=split == "test" and self.config.other_image,
                )
        return datasets


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
        """The configured folder, else one in the cache, named by the world's seed."""
        if self.config.build_info.get(self.data_type).storage:
            return super().folder()
        return cache_root() / f"micronews-{self.config.world.seed}"
