"""A data set: advertisements in a table, ``catalogue.csv``, beside a folder with their photos.

::

    id,image,caption,article,split,products,shown
    ad0,ad0.jpg,Ana Ruiz in Oslo.,Ana Ruiz came to Oslo.,train,Solana Cola;Kivu Water,Kivu Water
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ealign_plugin.data.defaults import register_dataset
from ealign_plugin.data.readers import ReadSample, Skipped, Source, register_reader
from ealign_plugin.data.readers.source import BadRecord, get, paragraphs, read_or_skip
from ealign_plugin.news import NewsSample


@register_reader("product_catalogue", files="folder with catalogue.csv and images/")
def read(source: Source) -> Iterator[ReadSample | Skipped]:
    """The rows of the table, one at a time; a row that cannot be used is skipped and counted."""
    with source.open(source.path / "catalogue.csv") as file:
        rows = csv.DictReader(io.TextIOWrapper(io.BytesIO(file.read()), encoding="utf-8", newline=""))
        for number, row in enumerate(rows, 2):
            yield read_or_skip(row.get("id") or f"line {number}", partial(sample_of, source, row))


def sample_of(source: Source, row: dict[str, str]) -> ReadSample:
    """A row as a sample, what the method does not know in ``extra``.

    Raises:
        BadRecord: a field is missing, or the products that are shown are not among those that are listed.
    """
    key, products, shown = get(row, "id", str), names(row, "products"), names(row, "shown")
    if not set(shown) <= set(products):
        raise BadRecord("a shown product is not listed", row["shown"])
    sample = NewsSample(
        key=key,
        split=source.split or get(row, "split", str),
        caption=get(row, "caption", str),
        paragraphs=paragraphs(get(row, "article", str)),
        article_id=key,
        source="product_catalogue",
        extra={"products": products, "shown": shown},
    )
    return ReadSample(sample, source.image(get(row, "image", str)))


def names(row: dict[str, str], column: str) -> list[str]:
    """The names in a column, which separates them by semicolons."""
    return [name.strip() for name in get(row, column, str, default="").split(";") if name.strip()]


register_dataset("product_catalogue", Path(__file__).with_name("product_catalogue.yaml"), "product_catalogue")
