"""Make MicroNews on disk: draw, write, annotate by spaCy, pack into shards."""

from __future__ import annotations

import io
import logging
import os
import random
import re
import shutil
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path

from tqdm import tqdm

from ealign_plugin.data.shards.index import INDEX_NAME, ShardIndex
from ealign_plugin.data.shards.write import write_index, write_split
from ealign_plugin.entities import DEFAULT_NER, NamedEntityRecognizer, load_ner
from ealign_plugin.errors import UserError
from ealign_plugin.files import cannot_write, read_json
from ealign_plugin.micronews.draw import draw_photo
from ealign_plugin.micronews.world import Scene, make_samples
from ealign_plugin.news import SCHEMA_VERSION, SPLITS, NewsSample
from ealign_plugin.validation import unknown

RECIPE = 1
"""Number of this recipe; raise it when the same options would give other bytes."""

PHOTOS_PER_ARTICLE = 3

_OURS = re.compile(rf"{re.escape(INDEX_NAME)}|({'|'.join(SPLITS)})-\d+\.tar")


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
    """The folder's shards, made first where they are missing, damaged, or were made with other options.

    Args:
        folder: Where the shards are, or go.
        articles: Number of articles of each split; each has three photos.
        seed: Seed of the world's articles and photos.
        size: Width and height of the photos in pixels.
        ner: The spaCy model that finds the entities.
        processes: Processes of spaCy; 0 takes one per core, at most 4. The bytes do not depend on it.
        progress: Show a progress bar.

    Raises:
        UserError: an impossible option; the folder cannot be written or holds something else; there is no
            such NER model.
    """
    folder = Path(folder).resolve()  # a link stays a link
    _check_options(articles, size)
    recognizer = load_ner(ner)
    options = {"recipe": RECIPE, "articles": dict(articles), "seed": seed, "size": size}
    found_by = {"name": recognizer.name, "version": recognizer.version}
    if found := existing(folder, options, found_by):
        return found

    total = sum(articles.values()) * PHOTOS_PER_ARTICLE
    logging.info("Making MicroNews (%d photos) in %s", total, folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scaffold = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        part = scaffold / folder.name  # not the scaffold itself: only its owner may enter that
        part.mkdir()
    except OSError as error:
        raise cannot_write(folder, error) from None
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
        if found := existing(folder, options, found_by):  # another process was faster, and may be reading
            return found
        _replace(folder, part, scaffold / "old")
    finally:
        shutil.rmtree(scaffold, ignore_errors=True)
    return ShardIndex.load(folder)


def _check_options(articles: Mapping[str, int], size: int) -> None:
    for split, count in articles.items():
        if split not in SPLITS:
            raise UserError(unknown("world.articles", split, SPLITS, "split", list_all=True))
        if type(count) is not int or count < 0:
            raise UserError(f"world.articles.{split}: a number of articles was expected, found {count!r}")
    if type(size) is not int or size < 1:
        raise UserError(f"world.size: a number of pixels was expected, found {size!r}")


def existing(folder: Path, options: Mapping[str, object], ner: Mapping[str, str]) -> ShardIndex | None:
    """What the folder holds already, where it is what would be made; None where it may be made (again).

    Raises:
        UserError: the folder holds something that is not MicroNews', so it must not be replaced.
    """
    advice = f"{folder} exists and is no finished MicroNews: remove it or choose another folder"
    try:
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return None
        record = read_json(folder / INDEX_NAME, advice=advice)
        foreign = sorted(path.name for path in folder.iterdir() if not _OURS.fullmatch(path.name))
    except OSError as error:
        raise UserError(f"{folder}: it cannot be read ({error.strerror or error}); {advice}") from None
    if (source := record.get("source")) != "micronews":
        raise UserError(f"{folder}: it holds shards of {source!r}, not of MicroNews; choose another folder")
    wanted = {"schema": SCHEMA_VERSION, "options": options, "ner": ner}
    if all(record.get(field) == value for field, value in wanted.items()):
        try:
            return ShardIndex.load(folder)
        except UserError as error:
            logging.warning("MicroNews is damaged and is made again: %s", error)
    if foreign:
        raise UserError(
            f"{folder}: MicroNews must be made again, but {foreign[0]!r} is there too and would be lost; "
            "move it away or choose another folder"
        )
    return None


def _replace(folder: Path, new: Path, old: Path) -> None:
    try:
        if folder.exists():
            os.replace(folder, old)
        os.replace(new, folder)
    except OSError as error:
        raise cannot_write(folder, error) from None


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
