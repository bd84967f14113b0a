"""The names that a training split holds, read from its shards once and kept in a file of the run::

    <run folder>/training_names.json
        {"shards": "<sha256 of the index's rows>", "captions": ["ana ruiz", …], "words": ["oslo", …]}

Some twenty bytes a name, each once, however often the training repeats it. A file above `MAX_BYTES` is not
kept.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tarfile
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from ealign_plugin.data.shards.index import Shard, ShardIndex
from ealign_plugin.data.shards.read import RawSample, decode_record
from ealign_plugin.data.shards.tar import split_name
from ealign_plugin.errors import UserError
from ealign_plugin.files import MAX_JSON_BYTES, atomic_write, read_json
from ealign_plugin.metrics.subsets import TrainingNames
from ealign_plugin.news import NewsSample

NAME = "training_names.json"
SPLIT = "train"
MAX_BYTES = MAX_JSON_BYTES


def training_names(index: ShardIndex, folder: Path) -> TrainingNames:
    """The names of the training split: from the file, or from the shards, whose photos are not read.

    Args:
        index: The folder of shards.
        folder: Where the file is, or goes.

    Raises:
        UserError: the folder of shards has no training split, a shard cannot be read, or the file cannot be
            written.
    """
    shards = index.shards.get(SPLIT, ())
    if not shards:
        raise UserError(
            f"{index.folder}: the split {SPLIT!r} expected, whose names tell strangers from the known, none "
            "found; use the folder of the training, or leave out run.subsets and the control 'renamed'"
        )
    rows = json.dumps(index.record["splits"][SPLIT], sort_keys=True)
    digest = hashlib.sha256(rows.encode()).hexdigest()
    path = folder / NAME
    if path.is_file():
        record = read_json(path, advice="delete it")
        if record.get("shards") == digest:
            return TrainingNames(frozenset(record["captions"]), frozenset(record["words"]))
    names = TrainingNames.of(_records(shards, index.samples(SPLIT)))
    record = {"shards": digest, "captions": sorted(names.captions), "words": sorted(names.words)}
    content = json.dumps(record, ensure_ascii=False).encode()
    if len(content) <= MAX_BYTES:
        atomic_write(path, content)
    else:
        logging.warning(
            "%s: not kept, %s bytes are more than %s", path, f"{len(content):,}", f"{MAX_BYTES:,}"
        )
    return names


def _records(shards: tuple[Shard, ...], samples: int) -> Iterator[NewsSample]:
    """The records that can be read; a training leaves out the others too."""
    with tqdm(total=samples, desc="Names of the training", unit="photo", disable=samples < 10_000) as bar:
        for shard in shards:
            for raw in _raw_records(shard):
                bar.update()
                try:
                    yield decode_record(raw)
                except UserError as error:
                    logging.warning("names of the training: a sample is left out: %s", error)


def _raw_records(shard: Shard) -> Iterator[RawSample]:
    try:
        with shard.path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                key, suffix = split_name(member.name)
                content = tar.extractfile(member) if key and suffix == "json" else None
                if content is not None:
                    yield RawSample(key, b"", content.read())
    except (OSError, tarfile.TarError) as error:
        raise UserError(f"{shard.path}: the shard cannot be read ({error}); make it again") from None
