"""Training streams and evaluations of small shards, and what is taken from them."""

from __future__ import annotations

import dataclasses
import itertools
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

from ealign_plugin.alignment.mixture import TaskMixture
from ealign_plugin.alignment.prompts import Wording
from ealign_plugin.data.shards.index import Shard
from ealign_plugin.data.streams.evaluation import EvaluationSamples
from ealign_plugin.data.streams.mixing import TaskMixer
from ealign_plugin.data.streams.training import training_stream

MIX = TaskMixture(tasks={"caption": 1, "sentence": 2, "entity": 1})


def to_tensor(image: Image.Image) -> torch.Tensor:
    """[3, 8, 8], as an image processor gives it."""
    return torch.from_numpy(np.array(image.resize((8, 8)))).permute(2, 0, 1).float()


def training(shards, **changes):
    values = {"recipe": MIX, "wording": Wording(), "batch_size": 8, "seed": 1, "context_words": 20, **changes}
    of_mixer = {field.name for field in dataclasses.fields(TaskMixer)}
    mixer = TaskMixer(**{name: value for name, value in values.items() if name in of_mixer})
    rest = {name: value for name, value in values.items() if name not in of_mixer}
    return training_stream(shards, mixer, **{"image_processor": to_tensor, **rest})


def take(count: int, iterable) -> list:
    return list(itertools.islice(iterable, count))


def text_of(items) -> list[tuple[str, ...]]:
    return [(item["key"], item["task"], item["instruction"], item["target"]) for item in items]


def index_of(*shards: Shard) -> SimpleNamespace:
    """As much of an index as evaluation reads."""
    return SimpleNamespace(folder=shards[0].path.parent, shards={"test": shards}, ner={"name": "none"})


def evaluation_of(*shards: Shard, **options) -> EvaluationSamples:
    return EvaluationSamples(
        index_of(*shards), "test", image_processor=to_tensor, wording=Wording(), **options
    )
