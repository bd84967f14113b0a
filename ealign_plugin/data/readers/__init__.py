"""Readers of public data sets and of a user's files, by name.

A source of this package is one file here with a function ``read(source)`` (see `source`), and one line below.
Another package adds one by a decorator; ``ealign prepare NAME PATH`` then knows it::

    @register_reader("herald", files="folder with herald.csv")
    def read(source: Source) -> Iterator[ReadSample | Skipped]:
        ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ealign_plugin.data.readers import goodnews, jsonl, llava, nytimes800k, vacnic, visualnews
from ealign_plugin.data.readers.source import ReadSample, Skipped, Source
from ealign_plugin.registry import Registry

Read = Callable[[Source], Iterator[ReadSample | Skipped]]


class Reader:
    """A registered reader; its module and docstring are those of its function.

    Args:
        read: Source → samples and skipped records, lazily.
        files: What ``ealign prepare --help`` says of the files that it reads.
    """

    def __init__(self, read: Read, files: str) -> None:
        self.read, self.files = read, files
        self.__doc__, self.__module__, self.__qualname__ = read.__doc__, read.__module__, read.__qualname__


READERS: Registry[Reader] = Registry("reader")
"""Name → reader."""


def register_reader(name: str, *, files: str) -> Callable[[Read], Read]:
    """Register a function as the reader of this name; for ``files`` see `Reader`.

    Raises:
        UserError: another function has the name.
    """

    def register(read: Read) -> Read:
        READERS.register(name, Reader(read, files))
        return read

    return register


register_reader(
    "goodnews",
    files="folder with captioning_dataset.json and img_splits.json; or the MongoDB dump; or mongodb://",
)(goodnews.read)
register_reader("nytimes800k", files="the MongoDB dump nytimes-2020-04-21.gz, or mongodb://")(
    nytimes800k.read
)
register_reader("visualnews", files="folder origin/ with data.json")(visualnews.read)
register_reader("vacnic", files="folder with train/val/test.json and articles_full/ or articles_seg/")(
    vacnic.read
)
register_reader("llava", files="JSON file of conversations, or a folder with train/val/test.json")(llava.read)
register_reader("jsonl", files="JSON Lines file, or a folder with train/val/test.jsonl")(jsonl.read)
