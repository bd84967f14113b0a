"""Small shards of samples that are annotated by hand: no spaCy, photos of 64 px."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from ealign_plugin.data.shards.index import Shard, ShardIndex
from ealign_plugin.news import NewsSample
from tests.factories import drawn_jpeg, news_sample, write_shards, write_tar


@pytest.fixture(scope="session")
def photo() -> Callable[[int], bytes]:
    """``photo(3)``: a drawn photo as a JPEG file's bytes."""
    return drawn_jpeg


@pytest.fixture(scope="session")
def news() -> Callable[..., NewsSample]:
    """``news(number, photo, split)``: an annotated sample; two photos stand with each article."""
    return news_sample


@pytest.fixture(scope="session")
def shards_of() -> Callable[..., ShardIndex]:
    """``shards_of(folder, articles, samples_per_shard=4)``: so many articles of each split, as shards."""

    def write(folder: Path, articles: dict[str, int], samples_per_shard: int = 4) -> ShardIndex:
        samples = {
            split: [news_sample(number, photo, split) for number in range(count) for photo in (0, 1)]
            for split, count in articles.items()
        }
        pairs = {
            split: [(one, drawn_jpeg(seed)) for seed, one in enumerate(ones)]
            for split, ones in samples.items()
        }
        return write_shards(folder, pairs, samples_per_shard=samples_per_shard)

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
        write_tar(path, members)
        return Shard(path, len({name.partition(".")[0] for name, _ in members}))

    return write
