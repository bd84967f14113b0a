"""``index.json``: what stands in a folder of shards, so that nobody has to open them to know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from upath import UPath

from ealign_plugin.errors import UserError
from ealign_plugin.files import as_path, read_json
from ealign_plugin.news import SCHEMA_VERSION

INDEX_NAME = "index.json"


@dataclass(frozen=True, slots=True)
class Shard:
    """One tar file: where it is and how many samples it holds."""

    path: Path | UPath
    samples: int


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """A folder of shards.

    Args:
        folder: The folder.
        shards: The shards of each split, in order.
        ner: Name and version of the model that found the entities.
        record: The whole of ``index.json``.
    """

    folder: Path | UPath
    shards: Mapping[str, tuple[Shard, ...]]
    ner: Mapping[str, str]
    record: Mapping[str, Any]

    def samples(self, split: str) -> int:
        """Number of samples of a split; 0 where the folder has none."""
        return sum(shard.samples for shard in self.shards.get(split, ()))

    @classmethod
    def load(cls, folder: str | Path | UPath) -> ShardIndex:
        """Read ``index.json`` and look whether the shards it names are there.

        Raises:
            UserError: no such folder or index, an index that is no JSON object or has another schema version,
                a missing or foreign shard.
        """
        folder = as_path(folder) if isinstance(folder, str) else folder
        path = folder / INDEX_NAME
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder of shards; make it first or correct the path")
        if not path.is_file():
            raise UserError(
                f"{folder}: no {INDEX_NAME} in it; the shards were not finished or it is another folder"
            )
        record = read_json(path, advice="make the shards again")
        if (version := record.get("schema")) != SCHEMA_VERSION:
            raise UserError(
                f"{path}: schema version {version!r} found, {SCHEMA_VERSION} expected; "
                "make the shards again with this version of ealign-plugin"
            )
        try:
            shards = {
                split: tuple(_shard(folder, item) for item in items)
                for split, items in record["splits"].items()
            }
            ner = {field: str(record["ner"][field]) for field in ("name", "version")}
            if not ner["name"].isidentifier():
                raise UserError(f"{path}: NER model {ner['name']!r} is no package's name; refused")
            return cls(folder, shards, ner, record)
        except KeyError as error:
            raise UserError(f"{path}: the field {error} is missing; make the shards again") from None
        except (TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{path}: a field is malformed ({error}); make the shards again") from None


def _shard(folder: Path | UPath, item: Mapping[str, Any]) -> Shard:
    name = item["name"]
    if Path(name).name != name:
        raise UserError(f"{folder / INDEX_NAME}: shard name {name!r} leads out of its folder; refused")
    path = folder / name
    if not path.is_file() or path.stat().st_size != item["bytes"]:
        found = f"{path.stat().st_size} bytes" if path.is_file() else "nothing"
        raise UserError(f"{path}: {item['bytes']} bytes expected, {found} found; make the shards again")
    return Shard(path, int(item["samples"]))
