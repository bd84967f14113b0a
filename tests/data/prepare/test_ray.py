"""The Ray engine gives the same bytes as local processes. Needs the extra ``ray``: ``make test-ray``."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from PIL import Image

from ealign_plugin.data.prepare.annotate import Job
from ealign_plugin.data.prepare.pipeline import prepare
from ealign_plugin.data.shards.index import ShardIndex

ray = pytest.importorskip("ray", reason="the extra ray is not installed: make test-ray")


@pytest.fixture(scope="module")
def cluster():
    """A local Ray with two workers."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


def source(folder: Path, articles: int = 20) -> Path:
    lines = []
    for number in range(articles):
        Image.new("RGB", (48, 32), (number * 12, 90, 128)).save(folder / f"{number}.jpg", "JPEG")
        lines.append(
            {
                "id": f"n{number}",
                "image": f"{number}.jpg" if number != 7 else "missing.jpg",
                "caption": f"Angela Merkel in Berlin on {number + 1} May.",
                "article": [f"Angela Merkel came to Berlin. It rained on {number + 1} May."],
                "split": "test" if number % 4 == 3 else "train",
            }
        )
    path = folder / "news.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.slow
def test_two_workers_give_the_bytes_of_the_local_engine(cluster, tmp_path):
    path = source(tmp_path)
    for engine, processes in (("local", 1), ("ray", 2)):
        job = Job(source="jsonl", location=str(path), out=str(tmp_path / engine), samples_per_shard=3)
        prepare(job, engine=engine, processes=processes, max_skipped=0.1, progress=False)
    assert digests(tmp_path / "ray") == digests(tmp_path / "local")
    index = ShardIndex.load(tmp_path / "ray")
    assert (index.samples("train"), index.samples("test")) == (15, 4)
    assert index.record["skipped"] == {"photo missing": 1}


@pytest.mark.slow
def test_what_another_engine_began_ray_finishes(cluster, tmp_path, monkeypatch):
    from ealign_plugin.data.prepare.annotate import ShardMaker

    path, make = source(tmp_path), ShardMaker.__call__

    def interrupted(self, part):
        if part.name == "train-000002.tar":
            raise KeyboardInterrupt
        return make(self, part)

    job = Job(source="jsonl", location=str(path), out=str(tmp_path / "out"), samples_per_shard=3)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ShardMaker, "__call__", interrupted)
        prepare(job, processes=1, max_skipped=0.1, progress=False)
    prepare(job, engine="ray", processes=2, max_skipped=0.1, progress=False)
    whole = Job(source="jsonl", location=str(path), out=str(tmp_path / "whole"), samples_per_shard=3)
    prepare(whole, processes=1, max_skipped=0.1, progress=False)
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")
