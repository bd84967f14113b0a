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
from ealign_plugin.micronews import closed, scenes, world
from ealign_plugin.micronews.draw import draw_photo, draw_scene
from ealign_plugin.news import ALL_SPLITS, SCHEMA_VERSION, NewsSample
from ealign_plugin.validation import unknown

RECIPES = {"closed": 1, "open": 4}
"""Kind of world → number of its recipe; raise it when the same options would give other bytes."""

PHOTOS_PER_ARTICLE = {"closed": 3, "open": 4}
"""Kind of world → photos of each article."""

_OURS = re.compile(rf"{re.escape(INDEX_NAME)}|({'|'.join(ALL_SPLITS)})-\d+\.tar")


def make_micronews(
    folder: str | Path,
    *,
    articles: Mapping[str, int],
    kind: str = "open",
    seed: int = 7,
    size: int = 256,
    ner: str = DEFAULT_NER,
    processes: int = 0,
    progress: bool = True,
) -> ShardIndex:
    """The folder's shards, made first where they are missing, damaged, or were made with other options.

    Args:
        folder: Where the shards are, or go.
        articles: Number of articles of each split; each has as many photos as `PHOTOS_PER_ARTICLE` says.
        kind: ``open``, where most people are strangers whose names must be read (`world`), or ``closed``, the
            first world, in which all names are known (`closed`).
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
    _check_options(articles, kind, size)
    recognizer = load_ner(ner)
    options = world_options(articles=articles, kind=kind, seed=seed, size=size)
    found_by = {"name": recognizer.name, "version": recognizer.version}
    if found := existing(folder, options, found_by):
        return found

    total = sum(articles.values()) * PHOTOS_PER_ARTICLE[kind]
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
                    _annotated(_samples(kind, split, count, seed), seed, size, recognizer, processes, bar),
                    part,
                    split,
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


def world_options(*, articles: Mapping[str, int], kind: str, seed: int, size: int) -> dict[str, object]:
    """What the index of a made world records, and by which it is found again."""
    named = {} if kind == "closed" else {"kind": kind}  # as indexes of the first world have it
    return {"recipe": RECIPES[kind], **named, "articles": dict(articles), "seed": seed, "size": size}


def _check_options(articles: Mapping[str, int], kind: str, size: int) -> None:
    if kind not in RECIPES:
        raise UserError(unknown("world.kind", kind, RECIPES, "world", list_all=True))
    for split, count in articles.items():
        if split not in ALL_SPLITS:
            raise UserError(unknown("world.articles", split, ALL_SPLITS, "split", list_all=True))
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


Scene = closed.Scene | scenes.Scene


def _samples(kind: str, split: str, count: int, seed: int) -> Iterator[tuple[NewsSample, Scene]]:
    if kind == "closed":
        rng = random.Random(f"micronews/{seed}/{split}")
        for number in range(count):
            yield from closed.make_samples(rng, f"{split}{number:05d}", split)
    else:
        rng, drawn_from = random.Random(f"micronews/open/{seed}/{split}"), world.world_of(split)
        for number in range(count):
            yield from world.make_samples(drawn_from, rng, f"{split}{number:05d}", split)


def _annotated(
    drawn: Iterator[tuple[NewsSample, Scene]],
    seed: int,
    size: int,
    recognizer: NamedEntityRecognizer,
    processes: int,
    bar: tqdm[None],
) -> Iterator[tuple[NewsSample, bytes]]:
    waiting: deque[Scene] = deque()

    def samples() -> Iterator[NewsSample]:
        for sample, scene in drawn:
            waiting.append(scene)
            yield sample

    for sample in recognizer.annotate(samples(), n_process=processes):
        yield sample, photo_file(waiting.popleft(), random.Random(f"photo/{seed}/{sample.key}"), size)
        bar.update()


def photo_file(scene: Scene, rng: random.Random, size: int = 256) -> bytes:
    """The scene's photo as a JPEG file."""
    if isinstance(scene, closed.Scene):
        photo = draw_photo(
            faces=[person.look for person in scene.people],
            backdrop=scene.place.look,
            logo=scene.org.look,
            layout=scene.event.look,
            rng=rng,
            size=size,
        )
    else:
        photo = draw_scene(scene, rng, size)
    buffer = io.BytesIO()
    photo.save(buffer, format="JPEG", quality=90)
    return buffer.getvalue()
