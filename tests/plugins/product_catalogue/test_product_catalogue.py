"""A row becomes a sample with its photo; a bad row is skipped with its cause."""

from __future__ import annotations

from pathlib import Path

import product_catalogue  # noqa: F401  registers the reader

from ealign_plugin.data.defaults import DATASETS, dataset_defaults
from ealign_plugin.data.readers import READERS, ReadSample, Skipped, Source

HEAD = "id,image,caption,article,split,products,shown\n"
ROW = "ad0,ad0.jpg,Ana Ruiz in Oslo.,Ana Ruiz came.,train,Solana Cola;Kivu Water,"


def read(folder: Path, *rows: str) -> list[ReadSample | Skipped]:
    """What the reader yields of a table."""
    (folder / "catalogue.csv").write_text(HEAD + "\n".join(rows), encoding="utf-8")
    return list(READERS["product_catalogue"].read(Source(str(folder))))


def test_a_row_becomes_a_sample(tmp_path):
    (item,) = read(tmp_path, ROW + "Kivu Water")
    assert item.sample.caption == "Ana Ruiz in Oslo." and item.sample.split == "train"
    assert item.sample.extra == {"products": ["Solana Cola", "Kivu Water"], "shown": ["Kivu Water"]}
    assert str(item.image) == str(tmp_path / "images" / "ad0.jpg")


def test_a_row_that_contradicts_itself_is_skipped(tmp_path):
    first, second = read(tmp_path, ROW + "Tarn Juice", ROW.replace("ad0,", "ad1,"))
    assert isinstance(first, Skipped) and first.cause == "a shown product is not listed"
    assert second.sample.key == "ad1"


def test_the_data_set_is_the_base_with_its_tasks():
    description = DATASETS["product_catalogue"]
    values = dataset_defaults(description.path)["datasets"]["product_catalogue"]
    assert description.source == "product_catalogue"
    assert values.recipe.tasks.products == 2 and values.max_skipped == 0.05
