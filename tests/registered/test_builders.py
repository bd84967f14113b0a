"""The builder of shards: which splits it gives, and what it refuses."""

from __future__ import annotations

import io

import pytest
from lavis.common.registry import registry
from omegaconf import OmegaConf
from PIL import Image

from ealign_plugin.data.readers import READERS
from ealign_plugin.data.shards.write import write_index, write_split
from ealign_plugin.data.streams.training import TrainingStream
from ealign_plugin.errors import UserError
from ealign_plugin.news import NewsSample
from ealign_plugin.registered import builders


@pytest.fixture
def build(tmp_path, monkeypatch):
    """``build(**config)`` -> the data sets of a folder with one sample in each split."""
    monkeypatch.setattr(builders, "load_ner", lambda name: None)
    monkeypatch.delitem(registry.mapping["state"], "configuration", raising=False)  # of a run before
    jpeg = io.BytesIO()
    Image.new("RGB", (8, 8)).save(jpeg, "JPEG")
    rows = {}
    for split in ("train", "val", "test"):
        sample = NewsSample(key=f"{split}0", split=split, caption="Rain.", paragraphs=("It rained.",))
        rows[split] = write_split([(sample, jpeg.getvalue())], tmp_path, split)
    write_index(tmp_path, rows, source="test", ner={"name": "none", "version": "1"}, options={})

    def datasets(**config) -> dict:
        cls = registry.get_builder_class("ealign_news")
        values = OmegaConf.load(cls.default_config_path()).datasets.ealign_news
        values = OmegaConf.merge(values, {"build_info": {"images": {"storage": str(tmp_path)}}}, config)
        return cls(values).build_datasets()

    return datasets


def test_all_splits_of_the_shards_are_given(build):
    sets = build()
    assert sorted(sets) == ["test", "train", "val"]
    assert isinstance(sets["train"], TrainingStream) and len(sets["val"]) == len(sets["test"]) == 1


@pytest.mark.parametrize("splits", [["train"], ["val", "test"]])
def test_splits_can_be_left_out(build, splits):
    assert sorted(build(splits=splits)) == sorted(splits)


def test_a_split_that_there_is_not_is_refused(build):
    with pytest.raises(UserError, match="splits: one of train, val, test was expected, found 'dev'"):
        build(splits=["train", "dev"])


PUBLIC = ("goodnews", "nytimes800k", "visualnews")


@pytest.mark.parametrize("name", PUBLIC)
def test_shards_of_a_public_set_are_looked_for_in_the_cache(name, monkeypatch, tmp_path):
    cls = registry.get_builder_class(f"ealign_{name}")
    builder = cls(OmegaConf.load(cls.default_config_path()).datasets[f"ealign_{name}"])
    monkeypatch.setenv("EALIGN_CACHE", str(tmp_path))
    with pytest.raises(
        UserError, match=rf"`ealign prepare {name} PATH --images PHOTOS --out {tmp_path}/{name}`"
    ):
        builder.folder()
    (tmp_path / name).mkdir()
    assert builder.folder() == tmp_path / name


@pytest.mark.parametrize("name", PUBLIC)
def test_the_head_of_its_config_names_the_source_and_a_command_that_there_is(name):
    head = open(registry.get_builder_class(f"ealign_{name}").default_config_path()).read()
    assert "github.com/" in head and f"ealign prepare {name} " in head and name in READERS


@pytest.mark.parametrize("name", PUBLIC)
def test_every_data_set_has_the_same_options(name):
    def options(dataset: str) -> dict:
        path = registry.get_builder_class(dataset).default_config_path()
        return OmegaConf.to_container(OmegaConf.load(path).datasets[dataset])

    assert options(f"ealign_{name}") == options("ealign_news")
