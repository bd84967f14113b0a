"""Make MicroNews on disk: draw, write, annotate by spaCy, pack into shards."""

from __future__ import annotations

import io
import json
import logging
import os
import random
import shutil
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path

from tqdm import tqdm

from ealign_plugin.entities import DEFAULT_NER, NamedEntityRecognizer, load_ner
from ealign_plugin.errors import UserError
from ealign_plugin.micronews.draw import draw_photo
from ealign_plugin.micronews.world import Scene, make_samples
from ealign_plugin.news import NewsSample
from ealign_plugin.shards.index import INDEX_NAME, ShardIndex
from ealign_plugin.shards.write import write_index, write_split

RECIPE = 1
"""Number of this recipe; raise it when the same options would give other bytes."""

PHOTOS_PER_ARTICLE = 3


def make_micronews(
    folder: str | Path,
    *,
    articles: Mapping[str, int],
    seed: int = 7,
    size: int = 256,
    ner: str = DEFAULT_NER,
    processes: int = 0,
    progress: bool = True,
) -> ShardIndex:
    """The folder's shards, made first where they are missing or were made with other options.

    Args:
        folder: Where the shards are, or go.
        articles: Number of articles of each split; each has three photos.
        seed: Seed of the world's articles and photos.
        size: Width and height of the photos in pixels.
        ner: The spaCy model that finds the entities.
        processes: Processes of spaCy; 0 takes one per core, at most 4. The bytes do not depend on it.
        progress: Show a progress bar.

    Raises:
        UserError: the folder cannot be written or holds something else, or there is no such NER model.
    """
    folder = Path(folder)
    recognizer = load_ner(ner)
    options = {"recipe": RECIPE, "articles": dict(articles), "seed": seed, "size": size}
    found_by = {"name": recognizer.name, "version": recognizer.version}
    if folder.exists():
        if not folder.is_dir() or (any(folder.iterdir()) and not (folder / INDEX_NAME).exists()):
            raise UserError(f"{folder}: it holds something that is no shards; choose another folder for MicroNews")
        if (folder / INDEX_NAME).exists():
            record = json.loads((folder / INDEX_NAME).read_text(encoding="utf-8"))
            if record.get("source") != "micronews":
                raise UserError(f"{folder}: it holds shards of {record.get('source')!r}, not of MicroNews")
            if record.get("options") == options and record.get("ner") == found_by:
                return ShardIndex.load(folder)

    total = sum(articles.values()) * PHOTOS_PER_ARTICLE
    logging.info("Making MicroNews (%d photos) in %s", total, folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise UserError(f"{folder}: it cannot be written ({error.strerror}); choose another folder") from None
    try:
        processes = processes or min(4, os.cpu_count() or 1)
        with tqdm(total=total, desc="MicroNews", unit="photo", disable=not progress) as bar:
            rows = {
                split: write_split(
                    _annotated(split, count, seed, size, recognizer, processes, bar), part, split
                )
                for split, count in articles.items()
            }
        write_index(part, rows, source="micronews", ner=found_by, options=options)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return ShardIndex.load(folder)


def _annotated(
    split: str,
    count: int,
    seed: int,
    size: int,
    recognizer: NamedEntityRecognizer,
    processes: int,
    bar: tqdm[None],
) -> Iterator[tuple[NewsSample, bytes]]:
    rng = random.Random(f"micronews/{seed}/{split}")
    scenes: deque[Scene] = deque()

    def samples() -> Iterator[NewsSample]:
        for number in range(count):
            for sample, scene in make_samples(rng, f"{split}{number:05d}", split):
                scenes.append(scene)
                yield sample

    for sample in recognizer.annotate(samples(), n_process=processes):
        yield sample, _jpeg(scenes.popleft(), random.Random(f"photo/{seed}/{sample.key}"), size)
        bar.update()


def _jpeg(scene: Scene, rng: random.Random, size: int) -> bytes:
    photo = draw_photo(
        faces=[person.look for person in scene.people],
        backdrop=scene.place.look,
        logo=scene.org.look,
        layout=scene.event.look,
        rng=rng,
        size=size,
    )
    buffer = io.BytesIO()
    photo.save(buffer, format="JPEG", quality=90)
    return buffer.getvalue()
