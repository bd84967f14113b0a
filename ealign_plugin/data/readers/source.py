"""What all readers share: where a data set lies, what a reader yields, how a bad record is reported.

A reader is a function ``read(source) -> Iterator[ReadSample | Skipped]``. It yields lazily, in an order that
depends on the files alone, the photos of one article in a row. It never opens a photo. A record that it
cannot use is a `Skipped`; a source that is wrong as a whole is a `UserError`.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

from upath import UPath

from ealign_plugin.errors import UserError
from ealign_plugin.files import SCHEME, as_path
from ealign_plugin.news import SPLITS, NewsSample

_T = TypeVar("_T")


REMOTE_IMAGES = frozenset({"http", "https", "s3", "gs", "gcs", "az", "abfs", "hf"})
"""A record may name its photo by a URL of these schemes; ``file:`` and chained URLs are refused."""


@dataclass(frozen=True, slots=True)
class ReadSample:
    """A sample without sentences and entities, and its photo's file (which need not exist)."""

    sample: NewsSample
    image: UPath


@dataclass(frozen=True, slots=True)
class Skipped:
    """A record that cannot be used.

    Args:
        key: Its key, or whatever else names it in its source.
        cause: What is wrong, in words that all records with this defect share ("empty caption").
        detail: What was found here.
    """

    key: str
    cause: str
    detail: str = ""


class BadRecord(Exception):
    """Raised while one record is parsed; the reader turns it into a `Skipped` and goes on."""

    def __init__(self, cause: str, detail: str = "") -> None:
        super().__init__(cause, detail)
        self.cause, self.detail = cause, detail


class Source:
    """A data set's files.

    Args:
        location: File, folder or URL (any that fsspec opens; ``mongodb://`` where the reader knows it).
        images: Folder or URL of the photos; where None, the reader's default below the location.
        split: Split of all samples; where None, what the source says, else `split_by_hash`.

    ``share`` tells which share of the source has been read, from 0 to 1.
    """

    def __init__(self, location: str, *, images: str | None = None, split: str | None = None) -> None:
        if split is not None and split not in SPLITS:
            raise UserError(f"--split: one of {', '.join(SPLITS)} was expected, found {split!r}")
        self.location, self.images, self.split = location, images, split
        self.share = 0.0
        self._image_folders: dict[str, UPath] = {}

    @property
    def path(self) -> UPath:
        """The location as a path.

        Raises:
            UserError: a URL of a scheme that fsspec cannot open here.
        """
        return as_path(self.location)

    @contextmanager
    def open(
        self, path: UPath, *, count: bool = True, span: tuple[float, float] = (0.0, 1.0)
    ) -> Iterator[BinaryIO]:
        """Open a file of the source for reading bytes; where ``count``, `share` follows the position in it.

        Args:
            path: The file.
            count: Whether `share` follows.
            span: `share` at the file's beginning and end, where the source has several files.

        Raises:
            UserError: the file is missing or cannot be read.
        """
        try:
            size = path.stat().st_size or 0
            with path.open("rb") as file:
                yield _Counted(file, self, size, span) if count and size else file  # type: ignore[misc]
        except FileNotFoundError:
            raise UserError(f"{path}: no such file; correct the path") from None
        except OSError as error:
            raise UserError(f"{path}: it cannot be read ({error.strerror or error})") from None

    def image(self, name: str, default: str = "images") -> UPath:
        """The photo's file: ``name`` below the folder of photos, or a URL of `REMOTE_IMAGES`.

        Args:
            name: As the record gives it.
            default: Folder below the location, where the user named none.

        Raises:
            BadRecord: it leads out of the folder, or is a URL of another scheme.
        """
        if scheme := SCHEME.match(name):
            if scheme[1].lower() not in REMOTE_IMAGES or "::" in name or not _is_url(name):
                raise BadRecord("photo's URL refused", name)
            return as_path(name)
        return self._image_folder(default) / inside(name)

    def _image_folder(self, default: str) -> UPath:
        if default not in self._image_folders:  # once: is_dir may be a request to a server
            if self.images is not None:
                folder = as_path(self.images)
            else:
                folder = self.path if self.path.is_dir() else self.path.parent
                folder = folder if default == "." else folder / default
            self._image_folders[default] = folder
        return self._image_folders[default]


class _Counted(io.RawIOBase):
    """A file that tells its source how far it has been read."""

    def __init__(self, file: BinaryIO, source: Source, size: int, span: tuple[float, float]) -> None:
        self._file, self._source, self._size, self._span = file, source, size, span

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        start, end = self._span
        self._source.share = start + (end - start) * min(1.0, self._file.tell() / self._size)
        return content

    def readinto(self, buffer: Any) -> int:
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)


def _is_url(name: str) -> bool:
    try:
        return bool(urlsplit(name).netloc)
    except ValueError:  # such as "http://["
        return False


def inside(name: str) -> str:
    """The relative path, where it stays in its folder.

    Raises:
        BadRecord: it is absolute, climbs with "..", or is empty.
    """
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    if not parts or name.startswith(("/", "\\")) or ".." in parts or "\0" in name or ":" in parts[0]:
        raise BadRecord("path leads out of its folder", name)
    return "/".join(parts)


def get(record: Any, name: str, *types: type[_T], default: Any = BadRecord) -> Any:
    """A field of the record; ``None`` counts as missing.

    Args:
        record: What was read.
        name: Its field.
        types: Types that the field may have.
        default: Returned where the field is missing; without one that is an error.

    Raises:
        BadRecord: the record is no object, the field is missing or of another type.
    """
    if not isinstance(record, Mapping):
        raise BadRecord("record is no object", type(record).__name__)
    value = record.get(name)
    if value is None:
        if default is BadRecord:
            raise BadRecord("missing field", name)
        return default
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise BadRecord("field of a wrong type", f"{name}: {type(value).__name__}")
    return value


def paragraphs(text: str) -> tuple[str, ...]:
    """The text's lines without space around them; empty ones are left out."""
    return tuple(line for line in (" ".join(part.split()) for part in text.splitlines()) if line)


def split_by_hash(article_id: str) -> str:
    """The split of an article where its source names none: 90 % train, 5 % val, 5 % test, by sha256."""
    number = int.from_bytes(hashlib.sha256(article_id.encode()).digest()[:8], "big") % 100
    return "train" if number < 90 else "val" if number < 95 else "test"


def read_or_skip(key: str, make: Callable[[], ReadSample]) -> ReadSample | Skipped:
    """What ``make`` returns, or the `BadRecord` that it raises as a `Skipped`."""
    try:
        return make()
    except BadRecord as error:
        return Skipped(key, error.cause, error.detail)
