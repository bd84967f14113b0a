"""Shards → raw samples → decoded samples; nothing in a shard is ever unpickled or run."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from PIL import Image
from torch import Tensor

from ealign_plugin.data.shards.index import Shard
from ealign_plugin.data.shards.position import StreamPosition
from ealign_plugin.data.shards.tar import ERRORS, cause_of, read_groups, split_name
from ealign_plugin.errors import UserError
from ealign_plugin.images import open_image
from ealign_plugin.news import NewsSample

ImageProcessor = Callable[[Image.Image], Tensor]


@dataclass(frozen=True, slots=True)
class RawSample:
    """A sample's bytes as they stand in a shard, and the position after it in the training stream."""

    key: str
    image: bytes
    record: bytes
    position: StreamPosition = StreamPosition()


def decode(raw: RawSample, image_processor: ImageProcessor) -> tuple[NewsSample, Tensor]:
    """Bytes → record and picture; nothing in a shard is ever unpickled or run.

    Raises:
        UserError: the record or the picture is missing or broken, or the picture is too large.
    """
    return decode_record(raw), decode_photo(raw, image_processor)


def decode_photo(raw: RawSample, image_processor: ImageProcessor) -> Tensor:
    """Bytes → picture [3, H, W].

    Raises:
        UserError: the picture is missing or broken, or too large.
    """
    if not raw.image:
        raise UserError(f"sample {raw.key!r}: there is no photo (.jpg) beside its record")
    size = getattr(image_processor, "decode_size", None)
    return image_processor(open_image(raw.image, f"sample {raw.key!r}", size))


def decode_record(raw: RawSample) -> NewsSample:
    """Bytes → record.

    Raises:
        UserError: the record is missing or broken.
    """
    if not raw.record:
        raise UserError(f"sample {raw.key!r}: there is no record (.json) beside its photo")
    try:
        return NewsSample.from_json(json.loads(raw.record))
    except (ValueError, RecursionError) as error:
        raise UserError(f"sample {raw.key!r}: its JSON is broken ({error})") from None


class OtherMembers:
    """Members of shards that are neither photos nor records: ignored, and logged once for each suffix.

    >>> others = OtherMembers(most=10)
    """

    def __init__(self, most: int = 10) -> None:
        self.most = most  # a shard may hold any number of suffixes
        self.logged: set[str] = set()

    def is_photo_or_record(self, shard: Shard, name: str) -> bool:
        """Is this member of the shard a photo or a record?"""
        _, suffix = split_name(name)
        if suffix in ("jpg", "json"):
            return True
        if suffix not in self.logged and len(self.logged) < self.most:
            self.logged.add(suffix)
            logging.warning(
                "%s: %r and other members with the suffix %r are ignored, only .jpg and .json are read",
                *(shard.path, name[-80:], suffix[-80:]),
            )
        return False


def read_shard(shard: Shard, others: OtherMembers | None = None) -> Iterator[RawSample]:
    """The samples of a shard in order, half ones too.

    Args:
        shard: The shard.
        others: Logs the members that are neither photos nor records; give the same one for all shards of a
            stream.

    Raises:
        UserError: the tar file is broken.
    """
    others = others or OtherMembers()
    try:
        with shard.path.open("rb") as file:
            for key, parts in read_groups(file, str(shard.path), partial(others.is_photo_or_record, shard)):
                yield RawSample(key, parts.get("jpg", b""), parts.get("json", b""))
    except ERRORS as error:
        raise UserError(
            f"{shard.path}: the shard cannot be read ({cause_of(error)}); make it again"
        ) from None
