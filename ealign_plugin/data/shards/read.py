"""Shards → raw samples → decoded samples; nothing in a shard is ever unpickled or run."""

from __future__ import annotations

import json
import logging
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import webdataset as wds
from PIL import Image
from torch import Tensor

from ealign_plugin.data.shards.index import Shard
from ealign_plugin.data.shards.position import StreamPosition
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
    sample = decode_record(raw)
    if not raw.image:
        raise UserError(f"sample {raw.key!r}: there is no photo (.jpg) beside its record")
    size = getattr(image_processor, "decode_size", None)
    return sample, image_processor(open_image(raw.image, f"sample {raw.key!r}", size))


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


def read_shard(shard: Shard) -> Iterator[RawSample]:
    """The samples of a shard in order, half ones too; other members than photos and records are passed over,
    which is logged once for each suffix.

    Raises:
        UserError: the tar file is broken.
    """
    try:
        with shard.path.open("rb") as file:
            source = {"url": str(shard.path), "stream": file}
            files = wds.tariterators.tar_file_expander(
                [source], select_files=partial(is_photo_or_record, shard)
            )
            for group in wds.tariterators.group_by_keys(files):
                yield RawSample(group["__key__"], group.get("jpg", b""), group.get("json", b""))
    except (OSError, EOFError, ValueError, tarfile.TarError) as error:
        # webdataset appends its own objects to the arguments, and one's address to the first.
        cause = error if isinstance(error, OSError) else str(error.args[0]).partition(" @ ")[0]
        raise UserError(f"{shard.path}: the shard cannot be read ({cause}); make it again") from None


_passed_over: set[str] = set()  # suffixes that this process has already told of


def is_photo_or_record(shard: Shard, name: str) -> bool:
    """Is this member of the shard a photo or a record?"""
    key, suffix = wds.tariterators.base_plus_ext(name)
    suffix = suffix.lower() if key else ""
    if suffix in ("jpg", "json"):
        return True
    if suffix not in _passed_over and len(_passed_over) < 10:  # a shard may hold any number of suffixes
        _passed_over.add(suffix)
        logging.warning(
            "%s: %r and other members with the suffix %r are passed over, only .jpg and .json are read",
            *(shard.path, name[-80:], suffix[-80:]),
        )
    return False
