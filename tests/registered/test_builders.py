"""The builder of shards: which splits it gives, and what it refuses."""

from __future__ import annotations

import pytest
from lavis.common.registry import registry
from lavis.processors.base_processor import BaseProcessor
from omegaconf import OmegaConf

from ealign_plugin.data.defaults import DATASETS, dataset_defaults, register_dataset
from ealign_plugin.data.readers import READERS
from ealign_plugin.data.streams.training import TrainingStream
from ealign_plugin.errors import UserError
from ealign_plugin.host.config_checks import dataset_problems
from ealign_plugin.news import NewsSample
from ealign_plugin.registered import builders
from tests.factories import plain_jpeg, write_shards


@pytest.fixture
def build(tmp_path, monkeypatch):
    """``build(**config)`` -> the data sets of a folder with one sample in each split."""
    monkeypatch.setattr(builders, "load_ner", lambda name: None)
    monkeypatch.delitem(registry.mapping["state"], "configuration", raising=False)  # of a run before
    samples = {
        split: NewsSample(key=f"{split}0", split=split, caption="Rain.", paragraphs=("It rained.",))
        for split in ("train", "val", "test")
    }
    write_shards(tmp_path, {split: [(sample, plain_jpeg())] for split, sample in samples.items()})

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
    with pytest.raises(
        UserError, match="splits: one of train, val, test, test_known was expected, found 'dev'"
    ):
        build(splits=["train", "dev"])


def test_each_evaluated_split_gives_another_articles_photo_where_it_is_asked_for(build, tmp_path):
    splits = ("train", "val", "test")

    def sample(split: str, number: int) -> NewsSample:
        text = f"It rained {number} times."
        return NewsSample(key=f"{split}{number}", split=split, caption="Rain.", paragraphs=(text,))

    shards = {split: [(sample(split, number), plain_jpeg()) for number in range(2)] for split in splits}
    (tmp_path / "two").mkdir()
    write_shards(tmp_path / "two", shards)
    sets = build(build_info={"images": {"storage": str(tmp_path / "two")}}, other_image=True)
    assert all("other_image" in sets[split][0] for split in splits[1:])


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
    head = open(registry.get_builder_class(f"ealign_{name}").DATASET_CONFIG_DICT["default"]).read()
    assert "github.com/" in head and f"ealign prepare {name} " in head and name in READERS


@pytest.mark.parametrize("name", PUBLIC)
def test_every_data_set_has_the_same_options(name):
    def options(dataset: str) -> dict:
        path = registry.get_builder_class(dataset).default_config_path()
        return OmegaConf.to_container(OmegaConf.load(path).datasets[dataset])

    assert options(f"ealign_{name}") == options("ealign_news")


# Data sets of other packages


YAML = """
base: ealign_news.yaml
datasets:
  test_herald:
    shuffle_shards: 2
    vis_processor: {train: {image_size: 32}}
"""


@pytest.fixture
def herald(tmp_path, monkeypatch):
    monkeypatch.setitem(
        registry.mapping, "builder_name_mapping", dict(registry.mapping["builder_name_mapping"])
    )
    path = tmp_path / "herald.yaml"
    path.write_text(YAML)
    register_dataset("test_herald", path, source="herald")
    yield registry.get_builder_class("test_herald")
    DATASETS.unregister("test_herald")


def test_a_data_set_is_a_yaml_of_five_lines_over_a_base(herald, monkeypatch, tmp_path):
    assert issubclass(herald, builders.NewsBuilder)
    builder = herald()  # LAVIS's way to build from the defaults
    assert (builder.config.shuffle_shards, builder.config.max_skipped) == (2, 0.05)
    assert builder.config.vis_processor.train == {"name": "ealign_image", "image_size": 32}
    monkeypatch.setenv("EALIGN_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"^datasets.test_herald.build_info.images.storage: .*prepare herald"):
        builder.folder()


def test_a_key_that_no_data_set_has_is_found_in_it_too(herald):
    assert dataset_problems({"test_herald": {"shuffle_shard": 3}}) == [
        "datasets.test_herald.shuffle_shard: unknown key 'shuffle_shard'; did you mean 'shuffle_shards'?"
    ]


def test_the_older_key_of_the_budget_names_the_new_one():
    (problem,) = dataset_problems({"ealign_news": {"recipe": {"words": 80}}})
    assert problem.startswith("datasets.ealign_news.recipe.words: there is no such key any more; set run.")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: nothing.yaml\ndatasets: {a: {}}", "base: .*nothing.yaml: no such file"),
        ("base: ealign_news.yaml", "datasets: the section of one data set was expected"),
        ("datasets: {a: {}, b: {}}", "datasets: the section of one data set was expected"),
    ],
)
def test_a_yaml_that_describes_no_data_set(tmp_path, text, message):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        dataset_defaults(path)


def test_a_data_set_whose_yaml_describes_another(tmp_path):
    path = tmp_path / "herald.yaml"
    path.write_text(YAML)
    with pytest.raises(UserError, match=r"herald.yaml: datasets.herald: missing"):
        register_dataset("herald", path)
    assert "herald" not in DATASETS


# The text processor


@pytest.fixture
def lower(monkeypatch):
    """A text processor of another package."""
    monkeypatch.setitem(
        registry.mapping, "processor_name_mapping", dict(registry.mapping["processor_name_mapping"])
    )

    @registry.register_processor("test_lower")
    class Lower(BaseProcessor):
        def __call__(self, text):
            return text.lower()

        @classmethod
        def from_config(cls, cfg=None):
            return cls()

    return {"name": "test_lower"}


def test_a_text_processor_of_another_package_acts_in_training_and_at_test(build, lower):
    sets = build(text_processor={"train": lower, "eval": lower})
    assert sets["train"].mixer.wording.text("Ana") == "ana"
    assert sets["val"].wording == sets["test"].wording == sets["train"].mixer.wording


def test_two_text_processors_are_refused(build, lower):
    with pytest.raises(UserError, match="datasets.ealign_news.text_processor: train .*test_lower.* and eval"):
        build(text_processor={"train": lower})
