"""Small shards of samples that are annotated by hand: no spaCy, photos of 64 px."""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from ealign_plugin.data.shards.index import Shard, ShardIndex
from ealign_plugin.data.shards.write import write_index, write_split
from ealign_plugin.micronews.draw import draw_photo
from ealign_plugin.news import Entity, NewsSample, Sentence

LABELS = {"Ruiz": "PERSON", "Weber": "PERSON", "Oslo": "GPE", "Cairo": "GPE", "May": "DATE"}


def entities(text: str) -> tuple[Entity, ...]:
    return tuple(Entity(name, label, text.index(name)) for name, label in LABELS.items() if name in text)


def sample(number: int = 0, photo: int = 0, split: str = "train") -> NewsSample:
    """A photo of article ``number``: its first photo shows Ruiz in Oslo, its second Weber in Cairo."""
    texts = ("Ruiz spoke in Oslo.", "Weber came to Cairo.", f"It rained on {number + 1} May.")
    return NewsSample(
        key=f"{split}{number:03d}_{photo}",
        split=split,
        caption=(caption := ("Ruiz in Oslo.", "Weber in Cairo.")[photo]),
        caption_entities=entities(caption),
        paragraphs=(" ".join(texts),),
        sentences=tuple(Sentence(text, 0, " ".join(texts).index(text), entities(text)) for text in texts),
        article_id=f"{split}{number:03d}",
        source="test",
    )


def jpeg(seed: int = 0) -> bytes:
    photo = draw_photo(
        faces=[seed % 16], backdrop=seed % 6, logo=seed % 5, layout=seed % 4, rng=random.Random(seed), size=64
    )
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def photo() -> Callable[[int], bytes]:
    """``photo(3)``: a drawn photo as a JPEG file's bytes."""
    return jpeg


@pytest.fixture(scope="session")
def news() -> Callable[..., NewsSample]:
    """``news(number, photo, split)``: an annotated sample; two photos stand with each article."""
    return sample


@pytest.fixture(scope="session")
def shards_of() -> Callable[..., ShardIndex]:
    """``shards_of(folder, articles, samples_per_shard=4)``: so many articles of each split, as shards."""

    def write(folder: Path, articles: dict[str, int], samples_per_shard: int = 4) -> ShardIndex:
        rows = {}
        for split, count in articles.items():
            samples = [sample(number, photo, split) for number in range(count) for photo in (0, 1)]
            pairs = [(one, jpeg(seed)) for seed, one in enumerate(samples)]
            rows[split] = write_split(pairs, folder, split, samples_per_shard=samples_per_shard)
        write_index(folder, rows, source="test", ner={"name": "none", "version": "1"}, options={})
        return ShardIndex.load(folder)

    return write


@pytest.fixture(scope="session")
def index(shards_of, tmp_path_factory) -> ShardIndex:
    """24 training samples in 6 shards, 10 for the test in 3; not to be changed by tests."""
    return shards_of(tmp_path_factory.mktemp("shards"), {"train": 12, "test": 5})


@pytest.fixture
def tar_of(tmp_path) -> Callable[[Iterable[tuple[str, bytes]]], Shard]:
    """``tar_of([("a.jpg", b"..."), ...])``: a shard of any members, one sample for each key."""

    def write(members: Iterable[tuple[str, bytes]]) -> Shard:
        members = list(members)
        path = tmp_path / f"any-{len(list(tmp_path.iterdir())):06d}.tar"
        with tarfile.open(path, "w") as tar:
            for name, content in members:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        return Shard(path, len({name.partition(".")[0] for name, _ in members}))

    return write
