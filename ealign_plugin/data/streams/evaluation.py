"""The samples of a split for validation and test: each once, in order."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from torch import stack
from torch.utils.data import Dataset

from ealign_plugin.alignment.prompts import Wording
from ealign_plugin.data.shards.index import Shard, ShardIndex
from ealign_plugin.data.shards.read import ImageProcessor, RawSample, decode, decode_record
from ealign_plugin.data.shards.tar import split_name
from ealign_plugin.data.shards.training_names import training_names
from ealign_plugin.errors import UserError
from ealign_plugin.metrics.subsets import TrainingNames
from ealign_plugin.news import NewsSample

# Shard, key, offset and size of the photo, offset and size of the record.
_Member = tuple[Shard, str, tuple[int, int], tuple[int, int]]


class EvaluationSamples(Dataset[dict[str, Any]]):
    """The samples of a split for validation and test: each once, in order, as often as one likes.

    Args:
        index: The folder of shards.
        split: The split.
        image_processor: PIL picture → tensor [3, H, W].
        wording: How the tasks are worded; whoever evaluates must ask as the training asked.
        tasks: Names of the tasks that the training mixes; those of other packages are asked of every photo.
        limit: Read only the first so many samples; all where None.
        other_image: Give each sample another article's photo too, to prove that the picture is looked at.

    Raises:
        UserError: a shard is not what its index says, or there is no other article.
    """

    def __init__(
        self,
        index: ShardIndex,
        split: str,
        *,
        image_processor: ImageProcessor,
        wording: Wording,
        tasks: Sequence[str] = (),
        limit: int | None = None,
        other_image: bool = False,
    ) -> None:
        self.split, self.ner, self._index = split, dict(index.ner), index
        self.wording, self.image_processor, self.tasks = wording, image_processor, tuple(tasks)
        self._members: list[_Member] = []
        for shard in index.shards.get(split, ()):
            if limit is not None and len(self._members) >= limit:
                break
            self._members += _members(shard)
        self._members = self._members[:limit]
        self._left_out: frozenset[int] = frozenset()
        self._other_image = other_image
        if other_image and len(self):
            self._of_another_article(0)  # fails now rather than after the training

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """``index``, ``key``, ``image`` [3, H, W] and ``sample``; ``other_image`` where it was asked for.

        Of a sample that cannot be read ``index``, ``key`` and ``error``, what is wrong with it.
        Of one that was left out the ``index``.
        """
        if index in self._left_out:
            return {"index": index}
        item: dict[str, Any] = {"index": index, "key": self._members[index][1]}
        try:
            item["sample"], item["image"] = decode(self._raw(index), self.image_processor)
            if self._other_image:
                other = self._of_another_article(index)
                item["other_image"] = decode(self._raw(other), self.image_processor)[1]
        except UserError as error:
            return {"index": index, "key": item["key"], "error": str(error)}
        return item

    def leave_out(self, indexes: Iterable[int]) -> None:
        """Read no photos of these any more, as an evaluation does that goes on; they keep their numbers."""
        self._left_out = frozenset(indexes)

    def sample(self, index: int) -> NewsSample:
        """A sample without its photo.

        Raises:
            UserError: it cannot be read.
        """
        return decode_record(self._raw(index))

    def identity(self) -> dict[str, Any]:
        """Which samples these are, and how their photos are read."""
        listed = "".join(f"{shard.path.name} {key} {places}\n" for shard, key, *places in self._members)
        digest = hashlib.sha256(listed.encode()).hexdigest()[:12]
        processor = {name: value for name, value in vars(self.image_processor).items()}
        return {
            "samples": f"{len(self)} of {self.split}, sha256 {digest}",
            "image_processor": processor,
            "other_image": self._other_image,
            "templates": asdict(self.wording.templates),
        }

    def training_names(self, folder: Path) -> TrainingNames:
        """The names of the training split of the same folder of shards, kept in a file of ``folder``.

        Raises:
            UserError: as `ealign_plugin.data.shards.training_names.training_names`.
        """
        return training_names(self._index, folder)

    def _article(self, index: int) -> tuple[str, ...] | None:
        try:
            return self.sample(index).paragraphs
        except UserError:
            return None  # reported where this sample itself is read

    def _of_another_article(self, index: int) -> int:
        # Photos of one article stand together: half the split away is another's, unless one has so many.
        size, article = len(self), self._article(index)
        for step in range(size):
            other = (index + size // 2 + step) % size
            if self._article(other) not in (article, None):
                return other
        raise UserError(
            f"the {size} samples of {self.split!r} are photos of one article, other_image needs two "
            "articles; give more samples or set other_image: false"
        )

    def _raw(self, index: int) -> RawSample:
        shard, key, *places = self._members[index]
        try:
            with shard.path.open("rb") as file:
                image, record = (_read(file, *place) for place in places)
                return RawSample(key, image, record)
        except OSError as error:
            raise UserError(f"{shard.path}: the shard cannot be read ({error.strerror or error})") from None

    @staticmethod
    def collater(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Stack the images to [B, 3, H, W] and list the rest; ``errors`` lists what cannot be read."""
        whole = [item for item in items if "image" in item]
        names = whole[0] if whole else ("index", "key", "sample")
        batch: dict[str, Any] = {name: [item[name] for item in whole] for name in names}
        for name in ("image", "other_image"):
            if name in batch:
                batch[name] = stack(batch[name])
        batch["errors"] = [item for item in items if "error" in item]
        return batch


def _members(shard: Shard) -> list[_Member]:
    """The samples of a shard, by where their bytes lie.

    Raises:
        UserError: the tar file is broken, compressed, or holds another number of samples than its index says.
    """
    places: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        with shard.path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                key, suffix = split_name(member.name)
                if member.isfile() and key:
                    places.setdefault(key, {})[suffix] = (member.offset_data, member.size)
    except (OSError, tarfile.TarError) as error:
        raise UserError(f"{shard.path}: the shard cannot be read ({error}); make it again") from None
    members = [(shard, key, p["jpg"], p["json"]) for key, p in places.items() if "jpg" in p and "json" in p]
    if len(members) != shard.samples:
        raise UserError(
            f"{shard.path}: {shard.samples} samples expected, {len(members)} found; make the shards again"
        )
    return members


def _read(file: IO[bytes], offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)
