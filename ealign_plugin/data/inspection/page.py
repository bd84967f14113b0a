"""What `inspect_shards` found, as rows of text, and as one HTML page with plots and sample cards.

Everything here may hold strings from strangers (labels, keys, captions): rows are made printable, the page
is escaped by Jinja2, and plots stand in it as pictures, which cannot run anything.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ealign_plugin.alignment.selection import sentence_labels
from ealign_plugin.data.inspection.copying import find_caption_entities
from ealign_plugin.data.inspection.figures import raw_samples
from ealign_plugin.data.inspection.plots import data_url, plots
from ealign_plugin.data.inspection.rows import (
    SUMMARY,
    bad_samples,
    distributions,
    entity_types,
    leak_notes,
    leaks,
    number,
    overview,
    parts,
    percent,
    photo_sizes,
)
from ealign_plugin.data.shards.index import ShardIndex
from ealign_plugin.data.shards.read import decode_record
from ealign_plugin.entities import fold
from ealign_plugin.errors import UserError
from ealign_plugin.images import open_image
from ealign_plugin.news import NewsSample

CARDS = 6


def page(result: Mapping[str, Any], index: ShardIndex) -> bytes:
    """The HTML page: one file, no script, nothing from the network; UTF-8.

    Args:
        result: What `inspect_shards` found.
        index: Where the sample cards are taken from, where photos may be opened.
    """
    from jinja2 import Environment, StrictUndefined

    template = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    html = environment.from_string(template).render(
        result=result,
        sets=[
            {
                "figures": result[name],
                "parts": list(parts(result[name])),
                "overview": overview(result[name]),
                "distributions": distributions(result[name]),
                "distributions_of_all": [
                    [title, *cells] for title, _, *cells in distributions({**result[name], "splits": {}})
                ],
                "entity_types": entity_types(result[name]),
                "photo_sizes": photo_sizes(result[name]),
                "bad_samples": bad_samples(result[name]),
                "plots": list(plots(result[name])),
            }
            for name in ("set", "other")
            if name in result
        ],
        cards=list(cards(index)) if result["options"]["photos_opened"] else [],
        leaks=leaks(result),
        leak_notes=leak_notes(result),
        number=number,
        percent=percent,
        summary=SUMMARY,
    )
    return html.encode("utf-8", "replace")


def cards(index: ShardIndex) -> Iterator[dict[str, Any]]:
    """A few samples of every split, each of another article, with a small photo."""
    for split, shards in index.shards.items():
        articles: set[tuple[str, ...]] = set()
        for raw in raw_samples(shards, []):
            if len(articles) >= max(1, CARDS // len(index.shards)):
                break
            try:
                sample = decode_record(raw)
                if sample.paragraphs not in articles:
                    photo = _thumbnail(raw.image, raw.key)
                    articles.add(sample.paragraphs)
                    yield {"split": split, "sample": sample, "photo": photo, **_marked(sample)}
            except UserError:  # counted among the bad samples
                continue


def _thumbnail(jpeg: bytes, key: str) -> str:
    image = open_image(jpeg, key, 480)
    image.thumbnail((480, 360))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return data_url("image/jpeg", buffer.getvalue())


def _marked(sample: NewsSample) -> dict[str, Any]:
    """The caption in pieces (text, label of the entity or '', is it in the article), and its positives."""
    positive = sentence_labels(sample)
    found = find_caption_entities(sample, fold(" ".join(sample.paragraphs)), positive)
    pieces: list[tuple[str, str, bool]] = []
    at = 0
    for entity, where in sorted(zip(sample.caption_entities, found, strict=True), key=lambda p: p[0].start):
        if entity.start >= at:  # spans may overlap in the shards of others
            pieces.append((sample.caption[at : entity.start], "", False))
            pieces.append((entity.text, entity.label, where.words[0] is not None))
            at = entity.end
    pieces.append((sample.caption[at:], "", False))
    sentences = [s.text for s, is_positive in zip(sample.sentences, positive, strict=True) if is_positive]
    return {"pieces": pieces, "positive_sentences": sentences}
