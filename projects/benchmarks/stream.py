"""How fast the training stream is, and how fast it goes on after a restart.

A made-up data set is read through DataLoaders that take turns, so that a busy machine slows them alike:

    raw      webdataset decodes and resizes the photos; each gives one item
    stream   ours: photos and articles become a mix of the three tasks; each photo gives several examples

Medians of the rounds. Then: the time that a resumed stream needs to its first batch, over the time that
reading up to there took. Run it with the environment's Python: python projects/benchmarks/stream.py --help
"""

import argparse
import io
import itertools
import os
import random
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import webdataset as wds
from _options import read_options  # the file beside this one
from PIL import Image, ImageFilter
from torch.utils.data import DataLoader

from ealign_plugin.alignment.mixture import TaskMixture
from ealign_plugin.alignment.prompts import Wording
from ealign_plugin.cli.third_party import silence_third_party_warnings
from ealign_plugin.data.shards.index import Shard, ShardIndex
from ealign_plugin.data.shards.write import write_index, write_split
from ealign_plugin.data.streams.batches import TrainingBatches
from ealign_plugin.data.streams.mixing import TaskMixer
from ealign_plugin.data.streams.training import training_stream
from ealign_plugin.news import Entity, NewsSample, Sentence

silence_third_party_warnings()
from ealign_plugin.registered.processors import ImageProcessor

BATCH = 32
SYLLABLES = ("ka", "ren", "mo", "lis", "ta", "ve", "dor", "an", "ber", "shi", "ul", "go", "ne", "pra", "wi")
LABELS = ("PERSON", "PERSON", "GPE", "ORG", "DATE", "EVENT", "CARDINAL", "NORP")


def word(rng: random.Random, least: int = 1, most: int = 4) -> str:
    return "".join(rng.choices(SYLLABLES, k=rng.randint(least, most)))


def name(rng: random.Random) -> tuple[str, str]:
    """A made-up name and its label."""
    return " ".join(word(rng, 2, 3).title() for _ in range(rng.randint(1, 2))), rng.choice(LABELS)


def text(words: list[str], names: list[tuple[str, str]]) -> tuple[str, tuple[Entity, ...]]:
    """A sentence in which the names stand after every few words."""
    parts, entities, length = [], [], 0
    for number, part in enumerate(words):
        parts.append(part)
        length += len(part) + 1
        if number % 5 == 2 and len(entities) < len(names):
            entity = Entity(*names[len(entities)], length)
            entities.append(entity)
            parts.append(entity.text)
            length += len(entity.text) + 1
    return " ".join(parts) + ".", tuple(entities)


def article(key: str, words: int, rng: random.Random) -> NewsSample:
    """An annotated sample of about so many words; its caption shares names with some of the sentences."""
    names = [name(rng) for _ in range(max(4, words // 20))]
    sentences: list[Sentence] = []
    paragraphs: list[str] = []
    for paragraph in range(max(1, words // 90)):
        start = 0
        for _ in range(4):
            chosen = rng.sample(names, rng.randint(0, 3))
            sentence, entities = text([word(rng) for _ in range(20)], chosen)
            sentences.append(Sentence(sentence, paragraph, start, entities))
            start += len(sentence) + 1
        paragraphs.append(" ".join(sentence.text for sentence in sentences[-4:]))
    caption, entities = text([word(rng) for _ in range(15)], rng.sample(names, 3))
    return NewsSample(
        key=key,
        split="train",
        caption=caption,
        caption_entities=entities,
        paragraphs=tuple(paragraphs),
        sentences=tuple(sentences),
        article_id=key,
        source="benchmark",
    )


def photo(width: int, height: int, seed: int) -> bytes:
    """A JPEG file with areas, edges and grain, about as large as a press photo of this size."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8))
    areas = coarse.resize((width, height), Image.Resampling.BICUBIC).filter(ImageFilter.EDGE_ENHANCE)
    grain = rng.normal(0, 7, (height, width, 1))
    pixels = np.clip(np.asarray(areas) + grain, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=85)
    return file.getvalue()


def make(folder: Path, samples: int, *, words: int, size: tuple[int, int], shard: int) -> tuple[Shard, ...]:
    """Shards of so many samples; every hundredth photo is the same."""
    rng = random.Random(0)
    photos = [photo(*size, seed) for seed in range(100)]
    pairs = ((article(f"sample{n:06d}", words, rng), photos[n % 100]) for n in range(samples))
    rows = {"train": write_split(pairs, folder, "train", samples_per_shard=shard)}
    write_index(folder, rows, source="benchmark", ner={"name": "none", "version": "1"}, options={})
    return ShardIndex.load(folder).shards["train"]


def raw_loader(shards: tuple[Shard, ...], workers: int, processor: ImageProcessor) -> DataLoader:
    """Plain webdataset: the photos alone, nothing of the records is parsed."""
    urls = [str(shard.path) for shard in shards]
    data = wds.WebDataset(urls, shardshuffle=False).decode("pil", only=["jpg"])
    return DataLoader(data.to_tuple("jpg").map_tuple(processor).repeat(), BATCH, num_workers=workers)


def stream_loader(shards: tuple[Shard, ...], workers: int, processor: ImageProcessor) -> DataLoader:
    mixer = TaskMixer(TaskMixture(), Wording(), BATCH, seed=1)
    return DataLoader(training_stream(shards, mixer, image_processor=processor), BATCH, num_workers=workers)


def speed(loader: DataLoader, seconds: float) -> tuple[float, float]:
    """Items and photos per second, after the workers have started and filled their queues."""
    batches = iter(loader)
    for _ in range(4 * max(1, loader.num_workers)):
        next(batches)
    items = photos = 0
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        batch = next(batches)
        if isinstance(batch, dict):  # the examples of a photo stand together
            items += len(batch["key"])
            photos += sum(1 for _ in itertools.groupby(batch["key"]))
        else:
            items, photos = items + len(batch[0]), photos + len(batch[0])
    elapsed = time.perf_counter() - start
    return items / elapsed, photos / elapsed


def compare(folder: Path, options: argparse.Namespace) -> float:
    """Print the speeds; returns examples/s of the stream over images/s of webdataset alone."""
    width, height = options.width, options.width * 2 // 3
    shards = make(folder, options.samples, words=options.words, size=(width, height), shard=100)
    size = sum(shard.path.stat().st_size for shard in shards) / options.samples
    print(
        f"{options.samples} samples of {width}×{height} pixels and about {options.words} words, "
        f"{size / 1000:.0f} kB each"
    )
    print(f"{options.workers} workers a loader, batches of {BATCH}, {options.rounds} rounds")
    loaders = {
        "raw webdataset": (raw_loader, 0.0),
        "stream": (stream_loader, 0.0),
        "stream, decode_margin 2": (stream_loader, 2.0),
    }
    found: dict[str, list[tuple[float, float]]] = {which: [] for which in loaders}
    for _ in range(options.rounds):
        for which, (build, margin) in loaders.items():
            loader = build(shards, options.workers, ImageProcessor(224, decode_margin=margin))
            found[which].append(speed(loader, options.seconds))
    medians = {which: [statistics.median(v) for v in zip(*r, strict=True)] for which, r in found.items()}
    raw = medians["raw webdataset"][1]
    print(f"{'':25}{'items/s':>10}{'photos/s':>10}{'items÷raw':>11}{'photos÷raw':>12}")
    for which, (items, photos) in medians.items():
        print(f"{which:25}{items:10.0f}{photos:10.0f}{items / raw:11.2f}{photos / raw:12.2f}")
    return medians["stream"][0] / raw


def resume(folder: Path, options: argparse.Namespace) -> float:
    """Print the times; returns the time to resume over the time of reading up to there."""
    shards = make(folder, options.samples_small, words=60, size=(64, 64), shard=options.samples_small // 40)

    def batches() -> TrainingBatches:
        return TrainingBatches({"made": stream_loader(shards, options.workers, ImageProcessor(64))})

    start = time.perf_counter()
    whole, read = batches(), 0
    while read < options.resume_at:
        read += sum(1 for _ in itertools.groupby(next(whole)["key"]))
    reading = time.perf_counter() - start
    saved = whole.state()
    start = time.perf_counter()
    resumed = batches()
    resumed.resume([saved])
    first = next(resumed)
    resuming = time.perf_counter() - start
    expected = next(whole)
    if any(first[part] != expected[part] for part in ("key", "instruction", "target")):
        raise SystemExit("the resumed stream gave other examples than the one that read on")
    print(f"\n{options.samples_small:,} small samples in {len(shards)} shards, read for {read:,} samples")
    print(f"reading up to there       {reading:8.2f} s")
    print(f"resuming to a first batch {resuming:8.2f} s")
    print(f"size of the saved state   {len(saved):8d} characters")
    return resuming / reading


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1), help="of each loader")
    parser.add_argument("--rounds", type=int, default=5, help="of each loader; the median counts")
    parser.add_argument("--seconds", type=float, default=6.0, help="measured in each round")
    parser.add_argument("--samples", type=int, default=1600, help="of the larger data set")
    parser.add_argument("--words", type=int, default=900, help="of an article in it")
    parser.add_argument("--samples-small", type=int, default=20_000, help="of the data set that is resumed")
    parser.add_argument(
        "--width",
        type=int,
        default=640,
        help="of its photos; decode_margin 2 makes a difference from 1344 on",
    )
    parser.add_argument("--resume-at", type=int, default=100_000, help="sample at which is resumed")
    tiny = {"samples": 64, "words": 60, "width": 96, "samples_small": 200, "resume_at": 500}
    options = read_options(parser, workers=1, rounds=1, seconds=0.2, **tiny)
    with tempfile.TemporaryDirectory() as scratch:
        speed_ratio = compare(Path(scratch, "large"), options)
        resume_ratio = resume(Path(scratch, "small"), options)
    print(f"RATIO stream_vs_raw {speed_ratio:.3f}")
    print(f"RATIO resume_vs_reading {resume_ratio:.4f}")


if __name__ == "__main__":
    main()
