"""Training batches of one or several data sets, and where each of them stands.

Each batch comes from one data set, drawn by weight as a pure function of seed and batch number, so all
processes draw alike. What is needed to go on exactly is a short JSON text for each process::

    batch        0    1    2    3    4         weights: goodnews 2, visualnews 1
    data set     g    g    v    g    v
    worker of g  0    1         0              the loader takes its workers in turn
    worker of v            0         1

    {"identity": {...},                        what must be the same after a restart
     "sources": {"goodnews": {"delivered": 3, "consumers": {"0": [STATE, 0], "1": [STATE, 0]}}, ...}}
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ealign_plugin.data.shards.position import StreamPosition
from ealign_plugin.data.streams.position import ConsumerState
from ealign_plugin.data.streams.training import TrainingStream
from ealign_plugin.errors import UserError
from ealign_plugin.news import NewsSample

Batch = dict[str, Any]


@dataclass
class StreamState:
    """Where one process's stream of one data set stands, as the batches tell that came out of it.

    Args:
        workers: Worker processes of its DataLoader; 1 where the main process itself reads.
        delivered: Batches so far.
        consumers: For each worker its last ``stream_state``, and the examples that came after it.
        photos: Of the last batch; it is not saved.
    """

    workers: int
    delivered: int = 0
    consumers: dict[int, tuple[str, int]] = field(default_factory=dict)
    photos: int = 0

    def update(self, batch: Batch) -> Batch:
        """Take note of the next batch; returns it without its ``stream_state``."""
        if "stream_state" in batch:
            worker = self.delivered % self.workers
            text, behind = self.consumers.get(worker, ("", 0))
            for state in batch["stream_state"]:
                text, behind = (state, 0) if state else (text, behind + 1)
            self.consumers[worker] = text, behind
        self.delivered += 1
        self.photos = len(set(batch.get("key", ())))
        return {name: values for name, values in batch.items() if name != "stream_state"}

    def resume(self, stream: TrainingStream) -> None:
        """Let the stream go on from here."""
        stream.resume(self.delivered, self._states())

    def upcoming(
        self, stream: TrainingStream, photos: int, ahead: int
    ) -> Iterator[tuple[NewsSample, Tensor]]:
        """About so many samples that the stream reads after so many batches more, of all workers alike."""
        states, of_each = self._states(), -(-photos // self.workers)
        left_out = ahead // self.workers * self.photos
        for worker in range(self.workers):
            state = states.get(worker, ConsumerState())
            yield from stream.upcoming(worker, self.workers, state, of_each, left_out)

    def _states(self) -> dict[int, ConsumerState]:
        return {worker: ConsumerState.from_text(*state) for worker, state in self.consumers.items()}

    def to_json(self) -> dict[str, Any]:
        """JSON values; `from_json` is the inverse."""
        consumers = {str(worker): state for worker, state in self.consumers.items()}
        return {"delivered": self.delivered, "consumers": consumers}

    @classmethod
    def from_json(cls, record: Mapping[str, Any], workers: int) -> StreamState:
        """Read what `to_json` wrote."""
        consumers = {int(worker): (text, behind) for worker, (text, behind) in record["consumers"].items()}
        return cls(workers, record["delivered"], consumers)

    @classmethod
    def next_epoch(cls, records: Sequence[Mapping[str, Any]], workers: int) -> StreamState:
        """The beginning of the epoch after the furthest of all processes' `to_json`."""
        texts = [text for record in records for text, _ in record["consumers"].values()]
        positions = [state.position for text in texts if (state := ConsumerState.from_text(text))]
        epoch = max((position.epoch + 1 for position in positions if position), default=0)
        delivered = max(record["delivered"] for record in records)
        consumers = {}
        for worker in range(workers):
            batch = delivered + (worker - delivered) % workers  # its next number, see `TaskMixer.mix`
            consumers[worker] = ConsumerState(StreamPosition(epoch), batch).to_text(), 0
        return cls(workers, delivered, consumers)


class TrainingBatches:
    """Endless batches; iterate it once. The phases of a recipe count the batches of their data set alone.

    Args:
        loaders: Name of a data set → its loader, of a `TrainingStream`, or of a foreign data set, which can
            only go on by being read again.
        weights: Share of each data set among the batches; equal ones where None.
        seed: Seed of the draw.
        world_size: So many processes train.

    Raises:
        UserError: the weights do not fit the data sets.
    """

    def __init__(
        self,
        loaders: Mapping[str, DataLoader[Any]],
        *,
        weights: Mapping[str, Any] | None = None,
        seed: int = 0,
        world_size: int = 1,
    ) -> None:
        checked = check_weights(loaders, weights)
        self.weights = {name: weight for name, weight in checked.items() if weight}
        self.loaders = {name: loaders[name] for name in self.weights}
        self.seed, self.world_size = seed, world_size
        self._states = {name: StreamState(_workers(loader)) for name, loader in self.loaders.items()}
        self._iterators: dict[str, Iterator[Batch]] = {}

    def __iter__(self) -> TrainingBatches:
        return self

    def __next__(self) -> Batch:
        number = sum(state.delivered for state in self._states.values())
        name = random.Random(f"{self.seed}/{number}").choices(*zip(*self.weights.items(), strict=True))[0]
        if name not in self._iterators:  # only now: workers begin to read when they are started
            self._iterators[name] = self._start(name)
        return self._states[name].update(next(self._iterators[name]))

    def _start(self, name: str) -> Iterator[Batch]:
        loader, state = self.loaders[name], self._states[name]
        if isinstance(loader.dataset, TrainingStream):
            state.resume(loader.dataset)
            return iter(loader)
        iterator = iter(loader)
        if state.delivered:
            logging.info("%s cannot go on where it stood: reading %d batches again", name, state.delivered)
        for _ in range(state.delivered):
            next(iterator)
        return iterator

    def delivered(self, name: str) -> int:
        """So many batches came out of a data set, of earlier runs too."""
        return self._states[name].delivered

    def upcoming(self, name: str, photos: int, ahead: int = 0) -> Iterator[tuple[NewsSample, Tensor]]:
        """About so many samples, with their photos [3, H, W], that this process reads next of a data set.

        They are a function of the batches that came out, however far the workers have read ahead.

        Args:
            name: Of a data set whose loader has a `TrainingStream`.
            photos: Rounded up to as many of each worker; what the next two epochs hold at most.
            ahead: Leave out about the samples of so many batches, which may have been drawn already.
        """
        stream = self.loaders[name].dataset
        assert isinstance(stream, TrainingStream)
        return self._states[name].upcoming(stream, photos, ahead)

    def state(self) -> str:
        """What `resume` needs after a restart, as JSON text."""
        sources = {name: state.to_json() for name, state in self._states.items()}
        return json.dumps({"identity": self._identity(), "sources": sources})

    def resume(self, saved: Sequence[str], rank: int = 0) -> None:
        """Go on where the saved states stood; to be called before the first batch.

        With as many processes and workers as before, the next batch is the one that would have come. With
        others each data set goes on with the epoch after the furthest: nothing is read a second time before
        the rest of the data, and the rest of the begun epoch is not read.

        Args:
            saved: What `state` of each process gave.
            rank: This process.

        Raises:
            UserError: they are states of other data, or of data read in another way; the first difference.
        """
        records = [json.loads(text) for text in saved]
        now = json.loads(json.dumps(self._identity()))
        moved = []
        for key, before, found in _differences(records[0]["identity"], now):
            values = f"{_short(before)} when the checkpoint was saved, {_short(found)} now"
            change = f"{_config_key(key)}: {values}"
            if key not in ("processes", "run.num_workers"):
                raise UserError(
                    f"{change}; the training data go on where they stood only if it is the same: set it "
                    "back, or start anew from the weights (model.load_finetuned and model.finetuned)"
                )
            moved.append(change)
        if moved and rank == 0:
            logging.warning("%s: the training data go on with their next epoch", "; ".join(moved))
        for name, state in self._states.items():
            sources = [record["sources"][name] for record in records]
            if moved:
                self._states[name] = StreamState.next_epoch(sources, state.workers)
            else:
                self._states[name] = StreamState.from_json(sources[rank], state.workers)

    def identity_hash(self) -> str:
        """Of what must be the same after a restart, shards and recipe among it."""
        return hashlib.sha256(json.dumps(self._identity()).encode()).hexdigest()

    def _identity(self) -> dict[str, Any]:
        """What must be the same after a restart, by the keys of the config."""
        first, several = next(iter(self.loaders.values())), len(self.loaders) > 1
        return {
            "processes": self.world_size,
            "run.num_workers": _workers(first),
            "run.batch_size_train": first.batch_size,
            "datasets": {name: _identity(loader.dataset) for name, loader in self.loaders.items()},
            # One data set is not drawn.
            "run.train_dataset_ratios": self.weights if several else {},
            "run.seed": self.seed if several else None,
        }


def check_weights(names: Mapping[str, Any], weights: Mapping[str, Any] | None) -> dict[str, float]:
    """The weight of each data set.

    Raises:
        UserError: a name too many or too few, a weight that is no number of 0 or more, or all are 0.
    """
    if not weights:
        return dict.fromkeys(names, 1.0)
    where, known = "run.train_dataset_ratios", ", ".join(names)
    for name in weights:
        if name not in names:
            raise UserError(f"{where}: {name!r} has no training split; expected a number for each of {known}")
    for name in names:
        value = weights.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise UserError(
                f"{where}.{name}: a number of 0 or more was expected, found {value!r}; 0 leaves it out"
            )
    if not any(weights.values()):
        raise UserError(f"{where}: a number above 0 was expected for one of {known}, found only 0")
    return {name: float(weights[name]) for name in names}


def _workers(loader: DataLoader[Any]) -> int:
    return max(1, loader.num_workers)  # without workers the main process reads what one worker would


def _identity(dataset: Dataset[Any]) -> dict[str, Any]:
    return dataset.identity() if isinstance(dataset, TrainingStream) else {}


def _differences(before: Any, now: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The keys at which two JSON values differ; the order of keys counts, draws by weight depend on it."""
    if isinstance(before, dict) and isinstance(now, dict) and list(before) == list(now):
        for name in before:
            yield from _differences(before[name], now[name], f"{key}.{name}" if key else name)
    elif isinstance(before, dict) and isinstance(now, dict):
        yield key, ", ".join(before), ", ".join(now)
    elif before != now:
        yield key, before, now


def _config_key(key: str) -> str:
    """The key of the config; checkpoints keep the budget under the name that it had once."""
    return "run.context_words" if key.endswith(".recipe.words") else key


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 100 else f"{text[:100]} …"
