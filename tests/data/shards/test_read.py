"""Reading shards: which members are read, which are ignored, and what stops the reading."""

from __future__ import annotations

import io
import json
import logging
import os

import pytest
import torch
from PIL import Image

from ealign_plugin.data.shards.read import OtherMembers, RawSample, decode, read_shard
from ealign_plugin.errors import UserError
from tests.factories import members


def test_other_members_are_ignored(tar_of, news, photo):
    shard = tar_of([("readme.txt", b"hello"), *members(news(), photo(0), txt=b"notes"), ("__meta__", b"x")])
    assert [raw.key for raw in read_shard(shard)] == ["train000_0"]


def test_what_is_ignored_is_logged_once_for_each_suffix(tar_of, news, photo, caplog):
    extra = {"pickle": b"x", "txt": b"x"}
    shard = tar_of([m for n in range(9) for m in members(news(n), photo(0), **extra)] + [("LICENSE", b"x")])
    with caplog.at_level(logging.WARNING):
        others = OtherMembers()
        assert len(list(read_shard(shard, others))) == len(list(read_shard(shard, others))) == 9
    assert len(caplog.records) == 3
    assert caplog.records[0].getMessage() == (
        f"{shard.path}: 'train000_0.pickle' and other members with the suffix 'pickle' are ignored, "
        "only .jpg and .json are read"
    )


def test_a_shard_full_of_suffixes_does_not_flood_the_log(tar_of, caplog):
    assert list(read_shard(tar_of([(f"a.{number}", b"x") for number in range(500)]))) == []
    assert len(caplog.records) == 10


@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        ("truncated", "unexpected end of data"),
        ("gone", "No such file or directory"),
        ("no tar", "invalid header"),
        ("twice", "duplicate file name"),
    ],
)
def test_a_shard_that_cannot_be_read_is_one_clear_error(tar_of, news, photo, damage, cause):
    one = members(news(), photo(0))
    shard = tar_of(one if damage != "twice" else one + one[-1:])
    if damage == "truncated":
        os.truncate(shard.path, 1500)
    elif damage == "gone":
        shard.path.unlink()
    elif damage == "no tar":
        shard.path.write_bytes(b"not a tar file" * 1000)
    with pytest.raises(
        UserError, match=r"any-000000.tar: the shard cannot be read \(.*\); make it again"
    ) as error:
        list(read_shard(shard))
    assert cause in str(error.value) and "BufferedReader" not in str(error.value)


def test_the_image_processor_says_at_what_size_it_wants_the_picture(news):
    class Small:
        decode_size = 90

        def __call__(self, image: Image.Image) -> torch.Tensor:
            return torch.tensor(image.size)

    big = io.BytesIO()
    Image.new("RGB", (800, 400), "red").save(big, "JPEG")
    raw = RawSample("k", big.getvalue(), json.dumps(news().to_json()).encode())
    assert decode(raw, Small())[1].tolist() == [200, 100]
    assert decode(raw, lambda image: torch.tensor(image.size))[1].tolist() == [800, 400]
