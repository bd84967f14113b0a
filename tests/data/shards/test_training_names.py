"""Names of a training: read from its shards, without the photos, and kept in a file."""

from __future__ import annotations

import json

import pytest

from ealign_plugin.data.shards.index import ShardIndex
from ealign_plugin.data.shards.training_names import NAME, training_names
from ealign_plugin.errors import UserError
from tests.factories import news_sample, plain_jpeg, write_shards


@pytest.fixture
def shards(tmp_path) -> ShardIndex:
    train = [(news_sample(number), plain_jpeg()) for number in range(3)]
    test = [(news_sample(9, 1, "test"), plain_jpeg())]
    return write_shards(tmp_path / "shards", {"train": train, "test": test})


def test_names_of_captions_and_words_of_articles(shards, tmp_path):
    names = training_names(shards, tmp_path)
    assert names.captions == {"ruiz", "oslo"}  # those of the training alone
    assert names.words == {"ruiz", "oslo", "weber", "cairo", "it", "may"}


def test_the_shards_are_read_once(shards, tmp_path):
    first = training_names(shards, tmp_path)
    for shard in shards.shards["train"]:
        shard.path.unlink()
    assert training_names(shards, tmp_path) == first


def test_the_file_of_other_shards_is_not_used(shards, tmp_path):
    path = tmp_path / NAME
    path.write_text(json.dumps({"shards": "another", "captions": ["x"], "words": []}))
    assert "x" not in training_names(shards, tmp_path).captions
    assert json.loads(path.read_text())["captions"] == ["oslo", "ruiz"]


def test_a_folder_without_training_split_is_one_clear_error(tmp_path):
    index = write_shards(tmp_path / "shards", {"test": [(news_sample(0, 0, "test"), plain_jpeg())]})
    with pytest.raises(UserError, match="the split 'train' expected, whose names tell strangers"):
        training_names(index, tmp_path)


def test_a_broken_shard_is_one_clear_error(shards, tmp_path):
    shards.shards["train"][0].path.write_bytes(b"no tar" * 1000)
    with pytest.raises(UserError, match=r"train-000000.tar: the shard cannot be read .*make it again"):
        training_names(shards, tmp_path)
