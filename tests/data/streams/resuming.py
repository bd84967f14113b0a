"""Training streams that are stopped and go on, in any number of workers."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from torch.utils.data import default_collate

from ealign_plugin.alignment.mixture import TaskMixture
from ealign_plugin.alignment.prompts import Wording
from ealign_plugin.data.streams import order
from ealign_plugin.data.streams.batches import TrainingBatches
from ealign_plugin.data.streams.mixing import TaskMixer
from ealign_plugin.data.streams.training import TrainingStream, training_stream

MIX = TaskMixture(tasks={"caption": 1, "sentence": 2, "entity": 0.3})  # something is left to later batches
PHASES = [{"until": 5, "tasks": {"caption": 1}}]
TEXTS = ("key", "task", "instruction", "question", "target")


def to_tensor(image: Image.Image) -> torch.Tensor:
    """[3, 2, 2]"""
    return torch.from_numpy(np.array(image.resize((2, 2)))).permute(2, 0, 1).float()


def training(
    shards, *, recipe=MIX, seed=1, batch_size=8, phases=PHASES, context_words=20, usual="head", **options
) -> TrainingStream:
    mixer = TaskMixer(
        recipe,
        Wording(),
        batch_size,
        seed=seed,
        phases=phases,
        context_words=context_words,
        usual_context=usual,
    )
    return training_stream(shards, mixer, **{"image_processor": to_tensor, "window": 2, **options})


def plain(batch: dict) -> tuple:
    """A batch as something that can be compared."""
    return (*(tuple(batch[name]) for name in TEXTS), hashlib.sha256(batch["image"].numpy()).hexdigest())


def take(count: int, iterable) -> list:
    return list(itertools.islice(iterable, count))


@contextlib.contextmanager
def as_worker(number: int, of: int) -> Iterator[None]:
    worker = SimpleNamespace(id=number, num_workers=of) if of else None
    with patch.object(order, "get_worker_info", lambda: worker):
        yield


class Loader:
    """DataLoader's order, without its processes: the workers take turns, the first one begins."""

    def __init__(self, dataset, batch_size: int, num_workers: int) -> None:
        self.dataset, self.batch_size, self.num_workers = dataset, batch_size, num_workers

    def __iter__(self) -> Iterator[dict]:
        def read(worker: int) -> Iterator[dict]:
            with as_worker(worker, self.num_workers):
                examples = iter(self.dataset)
                first = next(examples)
            rest = itertools.chain([first], examples)
            while True:
                yield default_collate(take(self.batch_size, rest))

        readers = [read(worker) for worker in range(self.num_workers or 1)]
        return (next(reader) for reader in itertools.cycle(readers))


def batches_of(shards, workers: int, *, loader=Loader, size: int = 8, **options) -> TrainingBatches:
    return TrainingBatches({"news": loader(training(shards, **options), size, num_workers=workers)})


def delivered(checkpoint: Path) -> int:
    return json.loads(checkpoint.read_text())["sources"]["news"]["delivered"] if checkpoint.exists() else 0
