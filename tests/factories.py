"""What tests of several rooms are made of: annotated samples, photos, shards, the micro model, its batch."""

from __future__ import annotations

import io
import json
import random
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ealign_plugin.data.shards.index import ShardIndex
from ealign_plugin.data.shards.write import write_index, write_split
from ealign_plugin.micronews.draw import draw_photo
from ealign_plugin.news import Entity, NewsSample, Sentence

# Samples and photos

LABELS = {"Ruiz": "PERSON", "Weber": "PERSON", "Oslo": "GPE", "Cairo": "GPE", "May": "DATE"}


def entities_in(text: str) -> tuple[Entity, ...]:
    """The names above that the text holds."""
    return tuple(Entity(name, label, text.index(name)) for name, label in LABELS.items() if name in text)


def news_sample(number: int = 0, photo: int = 0, split: str = "train") -> NewsSample:
    """A photo of article ``number``: its first photo shows Ruiz in Oslo, its second Weber in Cairo."""
    texts = ("Ruiz spoke in Oslo.", "Weber came to Cairo.", f"It rained on {number + 1} May.")
    return NewsSample(
        key=f"{split}{number:03d}_{photo}",
        split=split,
        caption=(caption := ("Ruiz in Oslo.", "Weber in Cairo.")[photo]),
        caption_entities=entities_in(caption),
        paragraphs=(" ".join(texts),),
        sentences=tuple(Sentence(text, 0, " ".join(texts).index(text), entities_in(text)) for text in texts),
        article_id=f"{split}{number:03d}",
        source="test",
    )


def drawn_jpeg(seed: int = 0) -> bytes:
    """A drawn photo of 64 × 64 pixels, as a JPEG file's bytes."""
    photo = draw_photo(
        faces=[seed % 16], backdrop=seed % 6, logo=seed % 5, layout=seed % 4, rng=random.Random(seed), size=64
    )
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG")
    return buffer.getvalue()


def plain_jpeg(width: int = 8, height: int = 8, colour: str | tuple[int, ...] = 0) -> bytes:
    """A photo of one colour, as a JPEG file's bytes."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "JPEG")
    return buffer.getvalue()


# Shards


def write_shards(
    folder: Path,
    samples: Mapping[str, Iterable[tuple[NewsSample, bytes]]],
    *,
    source: str = "test",
    ner: str = "none",
    **options: Any,
) -> ShardIndex:
    """A folder of shards and its index: of each split these samples with their photos' bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = {split: write_split(pairs, folder, split, **options) for split, pairs in samples.items()}
    write_index(folder, rows, source=source, ner={"name": ner, "version": "1"}, options={})
    return ShardIndex.load(folder)


def members(sample: NewsSample, photo: bytes, **changes: bytes | None) -> list[tuple[str, bytes]]:
    """A sample's members in a shard, some with other content, or left out where None."""
    content = {"jpg": photo, "json": json.dumps(sample.to_json()).encode(), **changes}
    return [(f"{sample.key}.{suffix}", data) for suffix, data in content.items() if data is not None]


def write_tar(file: Any, content: Iterable[tuple[str, bytes]]) -> None:
    """A tar file of these names and contents, in their order, at a path or into a buffer."""
    where = {"name": file} if isinstance(file, Path) else {"fileobj": file}
    with tarfile.open(mode="w", **where) as tar:
        for name, data in content:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


# The micro model

TEXTS = [  # instruction, target; longest first, so that a batch keeps this order
    (
        "Article: The mayor spoke in the harbour of Oslo, where the police had closed two streets since the "
        "morning, and then left by train. Write the caption of the photo.",
        "Ana Lopez speaks in Oslo on 3 May.",
    ),
    (
        "Which people does the photo show? Name them all, with commas between the names.",
        "Ana Lopez, Jun Park",
    ),
    ("Does this sentence tell what the photo shows? The police closed two streets.", "no"),
    ("Who?", "Oslo"),
]


def micro_model() -> Any:
    """InstructBLIP of type ``micro`` with random weights; every call builds the same."""
    from lavis.models import load_model  # here, as tests of other rooms need no LAVIS

    torch.manual_seed(0)
    return load_model("ealign_instructblip", "micro")


def micro_batch() -> dict[str, Any]:
    """Four examples of unlike length, each a task of its own: ``loss_<task>`` is that of one example."""
    images = torch.randn(len(TEXTS), 3, 64, 64, generator=torch.Generator().manual_seed(1))
    return {
        "image": images,
        "instruction": [instruction for instruction, _ in TEXTS],
        "target": [target for _, target in TEXTS],
        "task": ["a", "b", "c", "d"],
    }
