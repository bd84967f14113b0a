"""Samples of an evaluation: each once, in order, with whatever is wrong said of each."""

from __future__ import annotations

import json

import pytest
import torch
from torch.utils.data import DataLoader

from ealign_plugin.alignment.prompts import Wording
from ealign_plugin.data.shards.index import Shard
from ealign_plugin.data.shards.read import read_shard
from ealign_plugin.data.streams.evaluation import EvaluationSamples
from ealign_plugin.errors import UserError
from ealign_plugin.images import open_image
from tests.data.streams.factories import evaluation_of, to_tensor
from tests.factories import members


def evaluation(index, **options) -> EvaluationSamples:
    return EvaluationSamples(index, "test", image_processor=to_tensor, wording=Wording(), **options)


KEYS = [f"test{number:03d}_{photo}" for number in range(5) for photo in (0, 1)]


def test_evaluation_reads_every_sample_once_in_order_any_number_of_times(index):
    samples = evaluation(index)
    assert len(samples) == 10 == index.samples("test")
    for _ in range(2):
        assert [samples[number]["key"] for number in range(10)] == KEYS
    assert (samples.split, samples.ner) == ("test", index.ner)


def test_evaluation_gives_what_was_written(index, news, photo):
    item = evaluation(index)[3]
    assert item["sample"] == news(1, 1, "test")
    assert torch.equal(item["image"], to_tensor(open_image(photo(3), "x")))
    assert item.keys() == {"image", "sample", "key", "index"}


def test_a_split_that_is_not_there_is_empty(index):
    assert len(EvaluationSamples(index, "val", image_processor=to_tensor, wording=Wording())) == 0


@pytest.mark.parametrize("limit", [0, 1, 4, 5, 99])
def test_the_limit(index, limit):
    samples = evaluation(index, limit=limit)
    assert [samples[number]["key"] for number in range(len(samples))] == KEYS[:limit]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_loader_batches_them(index, workers):
    samples = evaluation(index, other_image=True)
    loader = DataLoader(samples, 4, num_workers=workers, collate_fn=EvaluationSamples.collater)
    batches = list(loader)
    assert [key for batch in batches for key in batch["key"]] == KEYS
    assert [tuple(batch["image"].shape) for batch in batches] == [(4, 3, 8, 8), (4, 3, 8, 8), (2, 3, 8, 8)]
    assert batches[0]["other_image"].shape == (4, 3, 8, 8)


@pytest.mark.parametrize("limit", [3, 4, 5, 10])
def test_the_other_image_is_another_articles(index, photo, limit):
    pictures = [to_tensor(open_image(photo(seed), "x")) for seed in range(10)]
    samples = evaluation(index, other_image=True, limit=limit)
    for number in range(limit):
        other = samples[number]["other_image"]
        (found,) = [seed for seed, picture in enumerate(pictures) if torch.equal(picture, other)]
        assert found // 2 != number // 2 and found < limit


@pytest.mark.parametrize("limit", [1, 2])
def test_without_another_article_there_is_no_other_image(index, limit):
    with pytest.raises(UserError, match=f"the {limit} samples of 'test' are photos of one article"):
        evaluation(index, other_image=True, limit=limit)


def test_evaluation_refuses_a_shard_that_lacks_samples(tar_of, news, photo):
    whole, half = members(news(0), photo(0)), members(news(1), photo(1), jpg=None)
    shard = tar_of(whole + half)
    with pytest.raises(UserError, match="2 samples expected, 1 found; make the shards again"):
        evaluation_of(shard)


@pytest.mark.parametrize("content", [b"", b"no tar" * 1000])
def test_evaluation_refuses_what_is_no_tar_file(tmp_path, content):
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(UserError, match="a.tar: .*make"):
        evaluation_of(Shard(tmp_path / "a.tar", 1))


NO_PICTURE = "sample 'train000_0': it is no picture in a known format"


def test_evaluation_names_a_broken_sample_and_goes_on_with_the_others(tar_of, news, photo):
    shard = tar_of(members(news(0), b"broken") + members(news(1), photo(1)))
    samples = evaluation_of(Shard(shard.path, 2))
    assert samples[0] == {"index": 0, "key": "train000_0", "error": NO_PICTURE}
    batch = samples.collater([samples[0], samples[1]])
    assert batch["key"] == ["train001_0"] and len(batch["image"]) == 1
    assert batch["errors"] == [samples[0]]
    nothing = samples.collater([samples[0]])
    assert nothing["sample"] == [] and "image" not in nothing


def test_evaluation_leaves_out_what_is_done_and_keeps_the_places(tar_of, news, photo):
    shard = tar_of(members(news(0), photo(0)) + members(news(1), photo(1)))
    samples = evaluation_of(Shard(shard.path, 2))
    samples.leave_out([0])
    batch = samples.collater([samples[0], samples[1]])
    assert (len(samples), batch["index"], batch["errors"]) == (2, [1], [])
    assert samples.sample(0) == news(0)


def test_an_unreadable_record_does_not_take_the_other_photo_from_its_neighbours(tar_of, news, photo):
    shard = tar_of(
        members(news(0), photo(0))
        + [("b_0.jpg", photo(1)), ("b_0.json", b"{broken")]
        + members(news(2), photo(2))
    )
    samples = evaluation_of(Shard(shard.path, 3), other_image=True)
    assert "JSON is broken" in samples[1]["error"]
    assert samples[0]["other_image"].equal(samples[2]["image"])


def test_training_and_evaluation_agree_on_names_of_members(tar_of, news, photo):
    """The same file names are samples to both: folders with dots, suffixes in capitals."""
    record = json.dumps(news().to_json()).encode()
    shard = tar_of([("v1.0/a.JPG", photo(0)), ("v1.0/a.json", record)])
    shard = Shard(shard.path, 1)
    assert [raw.key for raw in read_shard(shard)] == ["v1.0/a"]
    assert len(evaluation_of(shard)) == 1


def test_a_shard_that_vanishes_is_one_clear_error(tar_of, news, photo):
    shard = tar_of(members(news(), photo(0)))
    samples = evaluation_of(shard)
    shard.path.unlink()
    assert "any-000000.tar: the shard cannot be read" in samples[0]["error"]
