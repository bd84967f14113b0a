"""A source of news in JSON Lines, and calls that make shards of it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from PIL import Image

from ealign_plugin.data.prepare.annotate import Job
from ealign_plugin.data.prepare.pipeline import prepare
from ealign_plugin.data.shards.index import ShardIndex
from ealign_plugin.data.shards.read import decode_record, read_shard

PEOPLE = ("Angela Merkel", "Barack Obama", "Emmanuel Macron", "Serena Williams", "Lionel Messi")
PLACES = ("Berlin", "Paris", "Chicago", "London", "Madrid")


def write_source(folder: Path, articles: int = 12, photos: int = 2, weather: int = 1) -> Path:
    """News of one's own: JSON Lines beside their photos; ``weather`` makes the articles longer."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(articles):
        who, where = PEOPLE[number % 5], PLACES[number // 5 % 5]
        for photo in range(photos):
            name = f"{number}_{photo}.jpg"
            color = (number * 20 % 256, photo * 90, 128)
            Image.new("RGB", (48, 32), color).save(folder / name, "JPEG")
            record = {
                "id": f"n{number:03d}_{photo}",
                "image": name,
                "caption": f"{who} in {where} on {number + 1} May.",
                "article": [
                    f"{who} came to {where}. " + "It rained. " * weather,
                    f"This is article {number}.",
                ],
                "split": "test" if number % 4 == 3 else "train",
            }
            lines.append(json.dumps(record))
    path = folder / "news.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def job_values(source: Path, out: Path) -> dict:
    return {"source": "jsonl", "location": str(source), "out": str(out), "samples_per_shard": 4}


def job(source: Path, out: Path, **changes) -> Job:
    return Job(**{**job_values(source, out), **changes})


def run(source: Path, out: Path, *, processes: int = 1, max_skipped: float = 0.05, **changes) -> ShardIndex:
    return prepare(job(source, out, **changes), processes=processes, max_skipped=max_skipped, progress=False)


def files(folder: Path) -> dict[str, str]:
    """Every file below the folder with its digest."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def samples(out: Path, split: str = "train"):
    return [decode_record(raw) for shard in ShardIndex.load(out).shards[split] for raw in read_shard(shard)]


def spoiled(folder: Path, spoil) -> Path:
    """40 photos, of which ``spoil(folder)`` breaks some."""
    path = write_source(folder, articles=20)
    spoil(folder)
    return path
