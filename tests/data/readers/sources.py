"""The same tiny news set in every JSON format, as its authors lay the files out.

Four articles, seven photos, three splits; two photos of "fjord" stand in one split, and "bridge" has a photo
in each of two splits. Each ``write_*`` writes the files and the photos, and returns the reader's location.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image


@dataclass(frozen=True)
class Photo:
    """A photo: index in its article, caption, split, index of the paragraph before which it stands."""

    idx: int
    caption: str
    split: str
    position: int


@dataclass(frozen=True)
class Article:
    id: str
    headline: str
    paragraphs: tuple[str, ...]
    photos: tuple[Photo, ...]


NEWS = [
    Article(
        "4fd2a0fjord",
        "Storm über Ålesund",
        (
            "ÅLESUND, Norway — Åse Nygård stood on the pier.",
            "“We heard it all night,” she said.",
            "Nobody was hurt.",
        ),
        (
            Photo(0, "Åse Nygård on the pier in Ålesund.", "train", 0),
            Photo(1, "The pier after the storm on Sunday.", "train", 2),
        ),
    ),
    Article(
        "4fd2a1bridge",
        "A bridge for Łódź",
        ("Łódź opened its new bridge on 3 May.", "Wanda Żak cut the ribbon."),
        (
            Photo(0, "Wanda Żak in Łódź.", "train", 1),
            Photo(2, "The new bridge, seen from the north.", "val", 2),
        ),
    ),
    Article(
        "4fd2a2market",
        "東京の朝市",
        ("TOKYO (東京) — The market opened at five.", "Kenji Satō sold 😀 tuna."),
        (Photo(0, "Kenji Satō, right, at the market.", "val", 0),),
    ),
    Article(
        "4fd2a3vote",
        "Élections à Genève",
        ("Geneva voted on Sunday.", "Zoë Müller won by 12 votes.", "A recount is expected."),
        (
            Photo(0, "Zoë Müller after the vote.", "test", 1),
            Photo(1, "Voters queue in Geneva.", "test", 1),
        ),
    ),
]


def photo(key: str) -> bytes:
    """A JPEG of 24 x 16 px whose colour tells photos apart."""
    buffer = io.BytesIO()
    Image.new("RGB", (24, 16), tuple(hashlib.sha256(key.encode()).digest()[:3])).save(buffer, "JPEG")
    return buffer.getvalue()


def write_photo(path: Path, key: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(photo(key))


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def photos(news: Iterable[Article]) -> Iterator[tuple[str, Article, Photo]]:
    """Key, article and photo of every photo in order."""
    for article in news:
        for one in article.photos:
            yield f"{article.id}_{one.idx}", article, one


def write_goodnews_json(folder: Path, news: Sequence[Article] = NEWS) -> Path:
    """``captioning_dataset.json``, ``img_splits.json`` and ``images/<article_id>_<idx>.jpg``."""
    articles = {
        article.id: {
            "images": {str(one.idx): one.caption for one in article.photos},
            "article": "\n\n".join(article.paragraphs),
            "article_url": f"https://news.example/{article.id}",
            "headline": {"main": article.headline},
        }
        for article in news
    }
    write_json(folder / "captioning_dataset.json", articles)
    write_json(folder / "img_splits.json", {key: one.split for key, _, one in photos(news)})
    for key, _, _ in photos(news):
        write_photo(folder / "images" / f"{key}.jpg", key)
    return folder


def write_visualnews(folder: Path, news: Sequence[Article] = NEWS) -> Path:
    """``data.json``, ``bbc/articles/<n>.txt`` and ``bbc/images/0001/<n>.jpg``; no headline and no split.

    An article's photos do not follow one another: all first photos come first.
    """
    rows = []
    numbers = {article.id: number for number, article in enumerate(news)}
    for id, (key, article, one) in enumerate(sorted(photos(news), key=lambda item: item[2].idx)):
        name = f"bbc/articles/{numbers[article.id]}.txt"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("\n\n".join(article.paragraphs), encoding="utf-8")
        image = f"bbc/images/0001/{500 + id}.jpg"
        write_photo(folder / image, key)
        rows.append(
            {
                "id": 1000 + id,
                "caption": one.caption,
                "topic": "world",
                "source": "bbc",
                "image_path": f"./{image}",
                "article_path": f"./{name}",
            }
        )
    write_json(folder / "data.json", rows)
    return folder


def write_vacnic(folder: Path, news: Sequence[Article] = NEWS, articles: str = "articles_full") -> Path:
    """``train/val/test.json``, ``articles_full/<id>.txt`` and ``images_processed/<id>.jpg``."""
    for split in ("train", "val", "test"):
        records = {
            key: {
                "caption": one.caption,
                "names": [article.headline.split()[0]],
                "org_norp": [],
                "gpe_loc": [],
                "names_art": [],
                "org_norp_art": [],
                "gpe_loc_art": [],
                "face_emb_dir": [],
            }
            for key, article, one in photos(news)
            if one.split == split
        }
        write_json(folder / f"{split}.json", records)
    for key, article, _ in photos(news):
        path = folder / articles / f"{key}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(article.paragraphs), encoding="utf-8")
        write_photo(folder / "images_processed" / f"{key}.jpg", key)
    return folder


def write_llava(folder: Path, news: Sequence[Article] = NEWS) -> Path:
    """``merge.json``: ``{split: [record]}``, and ``images/<id>.jpg``; the article is the human's turn."""
    records: dict[str, list[Any]] = {"train": [], "val": [], "test": []}
    for key, article, one in photos(news):
        records[one.split].append(
            {
                "id": key,
                "image": f"{key}.jpg",
                "conversations": [
                    {"from": "human", "value": "<image>\n" + "\n".join(article.paragraphs)},
                    {"from": "gpt", "value": one.caption},
                ],
            }
        )
        write_photo(folder / "images" / f"{key}.jpg", key)
    write_json(folder / "merge.json", records)
    return folder / "merge.json"


def write_jsonl(folder: Path, news: Sequence[Article] = NEWS) -> Path:
    """``news.jsonl`` with all fields, and ``photos/<id>.jpg``, named relative to the file's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "news.jsonl", "w", encoding="utf-8") as file:
        for key, article, one in photos(news):
            record = {
                "id": key,
                "image": f"photos/{key}.jpg",
                "caption": one.caption,
                "article": list(article.paragraphs),
                "headline": article.headline,
                "split": one.split,
                "image_position": one.position,
                "article_id": article.id,
                "url": f"https://news.example/{article.id}",
            }
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            write_photo(folder / "photos" / f"{key}.jpg", key)
    return folder / "news.jsonl"
