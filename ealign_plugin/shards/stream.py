"""Shards → training examples, endlessly, and → evaluation samples, each once.

Training reads whole shards one after the other and shuffles inside a window of a few shards, so that
disks and networks see long reads and the order is a pure function of seed and epoch::

    shards of the epoch, shuffled     [3 0] [2 1]          window: 2 shards
    samples of a window, shuffled     d a f c b e …        raw bytes; each consumer takes its part
    decoded                           (NewsSample, image)
    mixed                             caption, sentence ×4, entity, caption, …

A consumer is one worker of one rank. Where there are shards enough, each takes shards of its own;
otherwise all read the same shards and take turns.

The last example of a batch tells where its consumer stands (``stream_state``, some sixty characters, kept
by ``ealign_plugin.shards.batches``). From there the stream goes on exactly: the shards of one window are
read again, nothing is decoded twice.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import islice
from typing import IO, Any, NamedTuple

import webdataset as wds
from PIL import Image
from torch import Tensor, stack
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from ealign_plugin.alignment.instructions import TASKS, Example, Recipe, Templates, examples
from ealign_plugin.errors import UserError
from ealign_plugin.news import NewsSample
from ealign_plugin.shards.images import open_image
from ealign_plugin.shards.index import Shard, ShardIndex

ImageProcessor = Callable[[Image.Image], Tensor]
TextProcessor = Callable[[str], str]


class Place(NamedTuple):
    """Where a consumer stands after a sample.

    Args:
        epoch: The epoch.
        first: First shard of the window, in this consumer's order.
        offset: Samples of the shuffled window that lie behind.
        read: Samples of the epoch that lie behind, those of others among them.
        seen: Samples that this consumer has decoded or skipped since the training began.
        bad: Those that it skipped.
    """

    epoch: int = 0
    first: int = 0
    offset: int = 0
    read: int = 0
    seen: int = 0
    bad: int = 0


@dataclass(frozen=True, slots=True)
class RawSample:
    """A sample's bytes as they stand in a shard, and the place after it in the training stream."""

    key: str
    image: bytes
    record: bytes
    place: Place = Place()


@dataclass(frozen=True, slots=True)
class ConsumerState:
    """What a consumer needs to go on: its place, its next batch and what it owes to later ones.

    Args:
        place: After the last sample that it used; None at the very beginning.
        batch: Number of its next batch; None at the very beginning.
        owed: Examples of each task that are owed to later batches (see `task_quota`).
        skip: Examples after that which were delivered, too: a loader's batch may end within the mixer's.
    """

    place: Place | None = None
    batch: int | None = None
    owed: tuple[float, ...] = (0.0,) * len(TASKS)
    skip: int = 0

    def to_text(self) -> str:
        """What stands under ``stream_state``."""
        return json.dumps([self.place, self.batch, self.owed], separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str, skip: int = 0) -> ConsumerState:
        """Read what `to_text` wrote; empty text is the very beginning."""
        if not text:
            return cls(skip=skip)
        place, batch, owed = json.loads(text)
        return cls(Place(*place), batch, tuple(owed), skip)


def decode(raw: RawSample, image_processor: ImageProcessor) -> tuple[NewsSample, Tensor]:
    """Bytes → record and picture; nothing in a shard is ever unpickled or run.

    Raises:
        UserError: the record or the picture is missing or broken, or the picture is too large.
    """
    sample = decode_record(raw)
    if not raw.image:
        raise UserError(f"sample {raw.key!r}: there is no photo (.jpg) beside its record")
    size = getattr(image_processor, "decode_size", None)
    return sample, image_processor(open_image(raw.image, f"sample {raw.key!r}", size))


def decode_record(raw: RawSample) -> NewsSample:
    """Bytes → record.

    Raises:
        UserError: the record is missing or broken.
    """
    if not raw.record:
        raise UserError(f"sample {raw.key!r}: there is no record (.json) beside its photo")
    try:
        return NewsSample.from_json(json.loads(raw.record))
    except (ValueError, RecursionError) as error:
        raise UserError(f"sample {raw.key!r}: its JSON is broken ({error})") from None


class ShuffledSamples(IterableDataset):
    """Endless raw samples of this consumer, shuffled anew each epoch (see the module's drawing).

    Args:
        shards: The shards of the split.
        seed: Seed of the order.
        window: Shards that are held in memory and shuffled together.
        rank: This process, of
        world_size: so many.
    """

    def __init__(
        self, shards: Sequence[Shard], *, seed: int, window: int = 4, rank: int = 0, world_size: int = 1
    ) -> None:
        self.shards, self.seed, self.window = tuple(shards), seed, max(1, window)
        self.rank, self.world_size = rank, world_size

    def __iter__(self) -> Iterator[RawSample]:
        return self.read(*this_worker())

    def read(self, worker: int, workers: int, after: Place | None = None) -> Iterator[RawSample]:
        """The samples of one of this rank's workers, those after a place; no earlier window is opened.

        Raises:
            UserError: a shard cannot be read, or there are fewer samples than consumers.
        """
        consumer, consumers = self.rank * workers + worker, self.world_size * workers
        own_shards = len(self.shards) >= consumers
        epoch, start, offset, read, *_ = after or Place()
        given = after is not None  # in this epoch
        while True:
            order = random.Random(f"{self.seed}/{epoch}").sample(self.shards, len(self.shards))
            mine = order[consumer::consumers] if own_shards else order
            for first in range(start, len(mine), self.window):
                held = [raw for shard in mine[first : first + self.window] for raw in read_shard(shard)]
                random.Random(f"{self.seed}/{epoch}/{first}").shuffle(held)
                for at in range(offset, len(held)):
                    read += 1
                    if own_shards or (read - 1) % consumers == consumer:
                        given = True
                        yield replace(held[at], place=Place(epoch, first, at + 1, read))
                offset = 0
            if not given:
                raise UserError(
                    f"{read} samples in {len(self.shards)} shards are too few for {consumers} readers "
                    "(processes × run.num_workers); give more samples or lower run.num_workers"
                )
            epoch, start, read, given = epoch + 1, 0, 0, False


def this_worker() -> tuple[int, int]:
    """Number of this DataLoader worker, and of how many; the main process is worker 0 of 1."""
    worker = get_worker_info()
    return (worker.id, worker.num_workers) if worker else (0, 1)


def read_shard(shard: Shard) -> Iterator[RawSample]:
    """The samples of a shard in order, half ones too; other members than photos and records are passed over,
    which is logged once for each suffix.

    Raises:
        UserError: the tar file is broken.
    """
    try:
        with shard.path.open("rb") as file:
            source = {"url": str(shard.path), "stream": file}
            files = wds.tariterators.tar_file_expander([source], select_files=partial(_is_read, shard))
            for group in wds.tariterators.group_by_keys(files):
                yield RawSample(group["__key__"], group.get("jpg", b""), group.get("json", b""))
    except (OSError, EOFError, ValueError, tarfile.TarError) as error:
        # webdataset appends its own objects to the arguments, and one's address to the first.
        cause = error if isinstance(error, OSError) else str(error.args[0]).partition(" @ ")[0]
        raise UserError(f"{shard.path}: the shard cannot be read ({cause}); make it again") from None


_passed_over: set[str] = set()  # suffixes that this process has already told of


def _is_read(shard: Shard, name: str) -> bool:
    """Is this member of the shard a photo or a record?"""
    key, suffix = wds.tariterators.base_plus_ext(name)
    suffix = suffix.lower() if key else ""
    if suffix in ("jpg", "json"):
        return True
    if suffix not in _passed_over and len(_passed_over) < 10:  # a shard may hold any number of suffixes
        _passed_over.add(suffix)
        logging.warning(
            "%s: %r and other members with the suffix %r are passed over, only .jpg and .json are read",
            *(shard.path, name[-80:], suffix[-80:]),
        )
    return False


@dataclass
class Decoder:
    """Raw samples → decoded ones; a bad one is skipped and counted, too many stop the run.

    Args:
        image_processor: PIL picture → tensor [3, H, W].
        max_skipped: Largest share of bad samples.
    """

    image_processor: ImageProcessor
    max_skipped: float = 0.05
    seen: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    def __call__(self, stream: Iterable[RawSample]) -> Iterator[tuple[RawSample, NewsSample, Tensor]]:
        for raw in stream:
            self.seen += 1
            try:
                sample, image = decode(raw, self.image_processor)
            except UserError as error:
                self._skip(str(error))
                continue
            place = raw.place._replace(seen=self.seen, bad=self.skipped.total())
            yield replace(raw, place=place), sample, image

    def resume(self, place: Place) -> None:
        """Go on counting from there."""
        self.seen, self.skipped = place.seen, Counter({"before the training was resumed": place.bad})

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


@dataclass
class TaskMixer:
    """Decoded samples → examples, so that every batch holds the recipe's mix.

    A visit to a sample gives what the batch still lacks of each task, so its photo is used by several
    examples of a batch, which share ``key`` and ``image``.

    Args:
        recipe: Which examples to make.
        templates: The words around them.
        batch_size: Examples in a batch.
        seed: Seed of all choices.
        phases: Changes of the recipe over the training: ``{"until": batch, **changes}``, in order; the
            recipe itself holds after the last.
        text_processor: Applied to instructions, questions and targets.

    Raises:
        UserError: the batch cannot hold the mix, or the phases are not in order.
    """

    recipe: Recipe
    templates: Templates
    batch_size: int
    seed: int = 0
    phases: Sequence[Mapping[str, Any]] = ()
    text_processor: TextProcessor = str

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UserError(f"run.batch_size_train: at least 1 example was expected, found {self.batch_size}")
        self._recipes: list[tuple[int, Recipe]] = []
        for phase in self.phases:
            change = dict(phase)
            until, before = change.pop("until", None), self._recipes[-1][0] if self._recipes else 0
            if not isinstance(until, int) or until <= before:
                raise UserError(
                    f"phases: 'until' must be a batch after {before}, found {until!r} in {dict(phase)}"
                )
            self._recipes.append((until, self.recipe.changed(change)))
        for _, recipe in [*self._recipes, (0, self.recipe)]:
            _check_batch(recipe, self.batch_size)

    def recipe_at(self, batch: int) -> Recipe:
        """The recipe that holds for the batch with this number."""
        return next((recipe for until, recipe in self._recipes if batch < until), self.recipe)

    def __call__(self, stream: Iterable[tuple[RawSample, NewsSample, Tensor]]) -> Iterator[dict[str, Any]]:
        return self.mix(stream, *this_worker())

    def mix(
        self,
        stream: Iterable[tuple[RawSample, NewsSample, Tensor]],
        worker: int,
        workers: int,
        start: ConsumerState | None = None,
    ) -> Iterator[dict[str, Any]]:
        """The examples of one worker, from a state on; the last of each batch tells the state after it.

        Raises:
            UserError: ten thousand samples in a row gave no example of a task.
        """
        start = start or ConsumerState()
        number = worker if start.batch is None else start.batch
        owed = dict(zip(TASKS, start.owed, strict=True))
        samples = iter(stream)
        while True:
            recipe = self.recipe_at(number)
            quota = task_quota(recipe, self.batch_size, owed)
            idle = 0
            while any(quota.values()):
                raw, sample, image = next(samples)
                rng = random.Random(f"{self.seed}/{number}/{raw.place.epoch}/{raw.key}")
                made = 0
                for task in TASKS:
                    if quota[task] > 0:
                        for example in examples(sample, task, recipe, self.templates, rng)[: quota[task]]:
                            quota[task] -= 1
                            made += 1
                            item = self._item(example, image, raw.key)
                            if not any(quota.values()):
                                state = ConsumerState(raw.place, number + workers, tuple(owed.values()))
                                item["stream_state"] = state.to_text()
                            yield item
                idle = 0 if made else idle + 1
                if idle > 10_000:
                    lacking = ", ".join(task for task, left in quota.items() if left)
                    raise UserError(
                        f"10,000 samples in a row gave no example of the task {lacking}; check the data"
                    )
            number += workers

    def _item(self, example: Example, image: Tensor, key: str) -> dict[str, Any]:
        return {
            "image": image,
            "instruction": self.text_processor(example.instruction),
            "question": self.text_processor(example.question),
            "target": self.text_processor(example.target),
            "task": example.task,
            "key": key,
            "stream_state": "",
        }


def _check_batch(recipe: Recipe, batch_size: int) -> None:
    """Sentences come in whole visits: as many positives as negatives of one article."""
    tasks = {task for task, share in recipe.tasks.items() if share > 0}
    visit = 2 * recipe.positives
    if "sentence" in tasks and not 2 <= visit <= batch_size:
        raise UserError(
            f"a batch of {batch_size} examples cannot hold the {visit} sentences of one visit "
            f"(recipe.positives {recipe.positives}); change run.batch_size_train or recipe.positives"
        )
    if tasks == {"sentence"} and batch_size % visit:
        raise UserError(
            f"a batch of {batch_size} sentences is no multiple of the {visit} of one visit "
            f"(recipe.positives {recipe.positives}); change run.batch_size_train or give another task a share"
        )


def task_quota(recipe: Recipe, batch_size: int, owed: dict[str, float]) -> dict[str, int]:
    """How many examples of each task the next batch holds; what does not divide is owed to later batches.

    Sentences come in whole visits, the largest of the other tasks fills what is left.
    """
    total = sum(recipe.tasks.values())
    share = {task: recipe.tasks.get(task, 0.0) / total for task in TASKS}
    quota = dict.fromkeys(TASKS, 0)
    left = batch_size
    filler = max(TASKS, key=lambda task: (share[task] > 0 and task != "sentence", share[task]))
    # Sentences first, because they cannot make do with a small rest of the batch.
    for task in sorted(TASKS, key=lambda task: (task == filler, task != "sentence")):
        # At most one batch is owed: what can never be paid must not grow into the next phase.
        owed[task] = min(owed[task] + share[task] * batch_size, 2 * batch_size)
        unit = 2 * recipe.positives if task == "sentence" else 1
        count = left if task == filler else min(int(owed[task] / unit + 1e-9) * unit, left // unit * unit)
        quota[task] = max(0, count)
        owed[task] -= quota[task]
        left -= quota[task]
    return quota


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

    def iterator1(self) -> Iterator[dict[str, Any]]:
        """One endless pass."""
        worker, workers = this_worker()
        worker = (worker + self._delivered) % workers
        start = self._consumers.get(worker, ConsumerState())
        if start.place:
            self.decoder.resume(start.place)
        samples = self.decoder(self.samples.read(worker, workers, start.place))
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
            "recipe": asdict(self.mixer.recipe),
            "phases": [dict(phase) for phase in self.mixer.phases],
            "templates": asdict(self.mixer.templates),
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
) -> TrainingStream:
    """The stream of one process: its part of the shards, decoded and mixed."""
    return TrainingStream(
        ShuffledSamples(shards, seed=mixer.seed, window=window, rank=rank, world_size=world_size),
        Decoder(image_processor, max_skipped),
        mixer,
    )


# Shard, key, offset and size of the photo, offset and size of the record.
_Member = tuple[Shard, str, tuple[int, int], tuple[int, int]]


class EvaluationSamples(Dataset[dict[str, Any]]):
    """The samples of a split for validation and test: each once, in order, as often as one likes.

    Args:
        index: The folder of shards.
        split: The split.
        image_processor: PIL picture → tensor [3, H, W].
        templates: How the tasks are worded; whoever evaluates must ask as the training asked.
        limit: Read only the first so many samples; all where None.
        other_image: Give each sample another article's photo too, to prove that the picture is looked at.

    Raises:
        UserError: a shard is not what its index says, or there is no other article.
    """

    def __init__(
        self,
        index: ShardIndex,
        split: str,
        *,
        image_processor: ImageProcessor,
        templates: Templates,
        limit: int | None = None,
        other_image: bool = False,
    ) -> None:
        self.split, self.ner = split, dict(index.ner)
        self.templates, self.image_processor = templates, image_processor
        self._members: list[_Member] = []
        for shard in index.shards.get(split, ()):
            if limit is not None and len(self._members) >= limit:
                break
            self._members += _members(shard)
        self._members = self._members[:limit]
        self._left_out: frozenset[int] = frozenset()
        self._other_image = other_image
        if other_image and len(self):
            self._of_another_article(0)  # fails now rather than after the training

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """``index``, ``key``, ``image`` [3, H, W] and ``sample``; ``other_image`` where it was asked for.

        Of a sample that cannot be read ``index``, ``key`` and ``error``: what was found. Of one that was left
        out the ``index``.
        """
        if index in self._left_out:
            return {"index": index}
        item: dict[str, Any] = {"index": index, "key": self._members[index][1]}
        try:
            item["sample"], item["image"] = decode(self._raw(index), self.image_processor)
            if self._other_image:
                other = self._of_another_article(index)
                item["other_image"] = decode(self._raw(other), self.image_processor)[1]
        except UserError as error:
            return {"index": index, "key": item["key"], "error": str(error)}
        return item

    def leave_out(self, indexes: Iterable[int]) -> None:
        """Read no photos of these any more, as an evaluation does that goes on; they keep their places."""
        self._left_out = frozenset(indexes)

    def sample(self, index: int) -> NewsSample:
        """A sample without its photo.

        Raises:
            UserError: it cannot be read.
        """
        return decode_record(self._raw(index))

    def identity(self) -> dict[str, Any]:
        """Which samples these are, and how their photos are read."""
        listed = "".join(f"{shard.path.name} {key} {places}\n" for shard, key, *places in self._members)
        digest = hashlib.sha256(listed.encode()).hexdigest()[:12]
        processor = {name: value for name, value in vars(self.image_processor).items()}
        return {
            "samples": f"{len(self)} of {self.split}, sha256 {digest}",
            "image_processor": processor,
            "other_image": self._other_image,
            "templates": asdict(self.templates),
        }

    def _article(self, index: int) -> tuple[str, ...] | None:
        try:
            return self.sample(index).paragraphs
        except UserError:
            return None  # told where this sample itself is read

    def _of_another_article(self, index: int) -> int:
        # Photos of one article stand together: half the split away is another's, unless one has so many.
        size, article = len(self), self._article(index)
        for step in range(size):
            other = (index + size // 2 + step) % size
            if self._article(other) not in (article, None):
                return other
        raise UserError(
            f"the {size} samples of {self.split!r} are photos of one article, other_image needs two "
            "articles; give more samples or set other_image: false"
        )

    def _raw(self, index: int) -> RawSample:
        shard, key, *places = self._members[index]
        try:
            with shard.path.open("rb") as file:
                image, record = (_read(file, *place) for place in places)
                return RawSample(key, image, record)
        except OSError as error:
            raise UserError(f"{shard.path}: the shard cannot be read ({error.strerror or error})") from None

    @staticmethod
    def collater(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Stack the images to [B, 3, H, W] and list the rest; ``errors`` lists what cannot be read."""
        whole = [item for item in items if "image" in item]
        names = whole[0] if whole else ("index", "key", "sample")
        batch: dict[str, Any] = {name: [item[name] for item in whole] for name in names}
        for name in ("image", "other_image"):
            if name in batch:
                batch[name] = stack(batch[name])
        batch["errors"] = [item for item in items if "error" in item]
        return batch


def _members(shard: Shard) -> list[_Member]:
    """The samples of a shard, by where their bytes lie.

    Raises:
        UserError: the tar file is broken, compressed, or holds another number of samples than its index says.
    """
    places: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        with shard.path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                key, suffix = wds.tariterators.base_plus_ext(member.name)
                if member.isfile() and key:
                    places.setdefault(key, {})[suffix.lower()] = (member.offset_data, member.size)
    except (OSError, tarfile.TarError) as error:
        raise UserError(f"{shard.path}: the shard cannot be read ({error}); make it again") from None
    members = [(shard, key, p["jpg"], p["json"]) for key, p in places.items() if "jpg" in p and "json" in p]
    if len(members) != shard.samples:
        raise UserError(
            f"{shard.path}: {shard.samples} samples expected, {len(members)} found; make the shards again"
        )
    return members


def _read(file: IO[bytes], offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)
