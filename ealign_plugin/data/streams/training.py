"""Shards → training examples, endlessly, and → evaluation samples, each once.

Training reads whole shards one after the other and shuffles inside a window of a few shards, so that
disks and networks see long reads and the order is a pure function of seed and epoch::

    shards of the epoch, shuffled     [3 0] [2 1]          window: 2 shards
    samples of a window, shuffled     d a f c b e …        raw bytes; each consumer takes its part
    decoded                           (NewsSample, image)
    mixed                             caption, sentence ×4, entity, caption, …

A consumer is one worker of one rank. Where there are shards enough, they are divided between the consumers;
otherwise all read the same shards and take turns.

The last example of a batch holds where its consumer stands (``stream_state``, some sixty characters, kept
by ``ealign_plugin.data.streams.batches``). From there the stream goes on exactly: the shards of one window
are read again, nothing is decoded twice.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import webdataset as wds
from torch import Tensor

from ealign_plugin.alignment.own_selections import half_of
from ealign_plugin.data.shards.index import Shard
from ealign_plugin.data.shards.position import StreamPosition
from ealign_plugin.data.shards.read import ImageProcessor, RawSample, decode_photo, decode_record
from ealign_plugin.data.streams.mixing import TaskMixer
from ealign_plugin.data.streams.order import ShuffledSamples, this_worker
from ealign_plugin.data.streams.position import ConsumerState
from ealign_plugin.data.streams.refreshed import RefreshedSelections
from ealign_plugin.errors import UserError
from ealign_plugin.news import NewsSample


@dataclass
class Decoder:
    """Raw samples → decoded ones; a bad one is skipped and counted, too many stop the run.

    Args:
        image_processor: PIL picture → tensor [3, H, W].
        max_skipped: Largest share of bad samples.
        half: Only the samples of this half of the articles (`half_of`); None: all.

    Raises:
        UserError: too many are bad, or ten thousand in a row are of the other half.
    """

    image_processor: ImageProcessor
    max_skipped: float = 0.05
    half: int | None = None
    seen: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    def __call__(self, stream: Iterable[RawSample]) -> Iterator[tuple[RawSample, NewsSample, Tensor]]:
        others = 0  # in a row
        for raw in stream:
            self.seen += 1
            try:
                sample = decode_record(raw)
                wanted = self.half is None or half_of(sample) == self.half
                image = decode_photo(raw, self.image_processor) if wanted else None
            except UserError as error:
                self._skip(str(error))
                continue
            if image is None:
                others += 1
                if others > 10_000:
                    raise UserError(
                        f"half: {self.half} found, and 10,000 samples in a row are of the other half of the "
                        "articles; set it to null or give more articles"
                    )
                continue
            others = 0
            position = raw.position._replace(decoded=self.seen, skipped=self.skipped.total())
            yield replace(raw, position=position), sample, image

    def resume(self, position: StreamPosition) -> None:
        """Go on counting from there."""
        self.seen = position.decoded
        self.skipped = Counter({"before the training was resumed": position.skipped})

    def _skip(self, cause: str) -> None:
        # What all samples with this defect share: without the name before and the details behind.
        self.skipped[cause.partition(": ")[2].partition(" (")[0] or cause] += 1
        bad = self.skipped.total()
        if bad <= 10 or bad % 100 == 0:
            logging.warning("skipped a sample (%d of %d so far): %s", bad, self.seen, cause)
        if bad > max(20, self.max_skipped * self.seen):
            table = "; ".join(f"{count} × {why}" for why, count in self.skipped.most_common(5))
            raise UserError(
                f"{bad} of {self.seen} samples were bad, at most {self.max_skipped:.0%} may be: {table}; "
                "mend the shards or raise max_skipped"
            )


class TrainingStream(wds.DataPipeline):
    """The endless stream of single examples of a data set, which can go on where it stood.

    An example is ``image`` [3, H, W], ``instruction``, ``question``, ``target``, ``task``, ``key`` and
    ``stream_state`` (`ConsumerState` in the last example of a batch, else empty). Every ``mixer.batch_size``
    in a row hold the recipe's mix.
    """

    def __init__(self, samples: ShuffledSamples, decoder: Decoder, mixer: TaskMixer) -> None:
        super().__init__(samples, decoder, mixer)
        self.samples, self.decoder, self.mixer = samples, decoder, mixer
        self._delivered, self._consumers = 0, dict[int, ConsumerState]()

    def resume(self, delivered: int, consumers: Mapping[int, ConsumerState]) -> None:
        """Let the next iterators go on after so many batches, with the states of the workers that gave them.

        DataLoader takes its batches from the workers in turn and always begins with the first.
        """
        self._delivered, self._consumers = delivered, dict(consumers)

    def count_tokens_with(self, counter: Callable[[str], int]) -> None:
        """Measure contexts by this function where ``run.context_tokens`` is set; before the first example.

        Args:
            counter: Text → number of the model's tokens.
        """
        self.mixer.count_tokens = counter

    def draw_from(self, refreshed: RefreshedSelections) -> None:
        """Draw from files that the training writes as it learns; before the first example."""
        self.mixer.refreshed = refreshed

    def upcoming(
        self, worker: int, workers: int, state: ConsumerState, photos: int, left_out: int = 0
    ) -> Iterator[tuple[NewsSample, Tensor]]:
        """Samples that a worker will read after a state, each once; nothing is changed.

        Args:
            worker: Its number.
            workers: So many read this stream.
            state: Where the worker stands.
            photos: So many samples, or all until the end of the next epoch.
            left_out: Leave out the first so many.
        """
        raws = islice(self._unread(worker, workers, state.position), left_out, None)
        decoder = replace(self.decoder, seen=0, skipped=Counter())
        for _, sample, image in islice(decoder(raws), photos):
            yield sample, image

    def _unread(self, worker: int, workers: int, after: StreamPosition | None) -> Iterator[RawSample]:
        """What a worker reads in the rest of this epoch and in the next, each sample once."""
        seen, last = set[str](), None
        for raw in self.samples.read(worker, workers, after):
            last = raw.position.epoch + 1 if last is None else last
            if raw.position.epoch > last:
                return
            if raw.key not in seen:
                seen.add(raw.key)
                yield raw

    def iterator1(self) -> Iterator[dict[str, Any]]:
        """One endless pass."""
        worker, workers = this_worker()
        worker = (worker + self._delivered) % workers
        start = self._consumers.get(worker, ConsumerState())
        if start.position:
            self.decoder.resume(start.position)
        samples = self.decoder(self.samples.read(worker, workers, start.position))
        source = islice(self.mixer.mix(samples, worker, workers, start), start.skip, None)
        for stage in self.pipeline[3:]:
            source = self.invoke(stage, source)
        return source

    def identity(self) -> dict[str, Any]:
        """What must be the same for the stream to go on exactly, by the keys of the data set's config."""
        listed = "".join(f"{shard.path.name} {shard.samples}\n" for shard in self.samples.shards)
        samples = sum(shard.samples for shard in self.samples.shards)
        digest = hashlib.sha256(listed.encode()).hexdigest()[:12]
        return {
            "shards": f"{samples} samples in {len(self.samples.shards)} shards, sha256 {digest}",
            "seed": self.mixer.seed,
            "batch_size": self.mixer.batch_size,
            "shuffle_shards": self.samples.window,
            **self.mixer.identity(),
            **({} if self.decoder.half is None else {"half": self.decoder.half}),
        }


def training_stream(
    shards: Sequence[Shard],
    mixer: TaskMixer,
    *,
    image_processor: ImageProcessor,
    window: int = 4,
    rank: int = 0,
    world_size: int = 1,
    max_skipped: float = 0.05,
    half: int | None = None,
) -> TrainingStream:
    """The stream of one process: its part of the shards or of half of the articles, decoded and mixed."""
    return TrainingStream(
        ShuffledSamples(shards, seed=mixer.seed, window=window, rank=rank, world_size=world_size),
        Decoder(image_processor, max_skipped, half),
        mixer,
    )
