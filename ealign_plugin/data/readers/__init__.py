"""Readers of public data sets and of files of one's own, by name.

A new source is one file here with a function ``read(source)`` (see `source`), and one line below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ealign_plugin.data.readers import goodnews, jsonl, llava, nytimes800k, vacnic, visualnews
from ealign_plugin.data.readers.source import Found, Skipped, Source


@dataclass(frozen=True, slots=True)
class Reader:
    """A reader and what ``ealign prepare --help`` says of it."""

    read: Callable[[Source], Iterator[Found | Skipped]]
    files: str


READERS = {
    "goodnews": Reader(
        goodnews.read,
        "folder with captioning_dataset.json and img_splits.json; or the MongoDB dump; or mongodb://",
    ),
    "nytimes800k": Reader(nytimes800k.read, "the MongoDB dump nytimes-2020-04-21.gz, or mongodb://"),
    "visualnews": Reader(visualnews.read, "folder origin/ with data.json"),
    "vacnic": Reader(vacnic.read, "folder with train/val/test.json and articles_full/ or articles_seg/"),
    "llava": Reader(llava.read, "JSON file of conversations, or a folder with train/val/test.json"),
    "jsonl": Reader(jsonl.read, "JSON Lines file, or a folder with train/val/test.jsonl"),
}
