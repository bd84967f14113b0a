"""Texts and photos that two splits or two sets share, down to photos that look alike."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ealign_plugin.data.inspection import leaks
from ealign_plugin.data.inspection.figures import inspect_shards
from ealign_plugin.data.inspection.leaks import LEAKS, LOOK_BITS, alike, difference_hash
from tests.data.inspection.factories import picture, sample, write


def smaller(jpeg: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(jpeg)).resize((150, 110), Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=75)
    return buffer.getvalue()


def leaks_of(result) -> dict[tuple[str, str, str], tuple[int, int, int]]:
    return {
        (row["first"], row["second"], row["kind"]): (
            row["shared"],
            row["samples_in_first"],
            row["samples_in_second"],
        )
        for row in result["leaks"]
    }


def test_what_splits_share_is_told_by_kind(tmp_path):
    large = [picture(seed, (320, 240)) for seed in range(5)]
    index = write(
        tmp_path,
        [
            (sample("t0", "train", "One.", ("It “rained”.",)), large[0]),
            (sample("t1", "train", "Two.", ("It “rained”.",)), large[1]),
            (sample("t2", "train", "Three.", ("Snow.",)), large[2]),
            (sample("v0", "val", "Four.", ('it  "RAINED".',)), large[3]),  # the article
            (sample("v1", "val", "TWO.", ("Fog.",)), large[1]),  # caption and file
            (sample("v2", "val", "Five.", ("Hail.",)), smaller(large[2])),  # look
            (sample("v3", "val", "Six.", ("Wind.",)), large[4]),
        ],
    )
    result = inspect_shards(index)
    assert leaks_of(result) == {
        ("train", "val", "article"): (1, 2, 1),
        ("train", "val", "caption"): (1, 1, 1),
        ("train", "val", "photo_bytes"): (1, 1, 1),
        ("train", "val", "photo_look"): (2, 2, 2),
    }
    assert [row["examples"] for row in result["leaks"]] == [
        [["t0", "v0"]],
        [["t1", "v1"]],
        [["t1", "v1"]],
        [["t1", "v1"], ["t2", "v2"]],
    ]


def test_what_two_sets_share_is_told_split_by_split(tmp_path):
    one = write(tmp_path / "one", [(sample("a", "train", "One.", ("Rain.",)), picture(1))])
    two = write(
        tmp_path / "two",
        [
            (sample("b", "train", "Two.", ("Snow.",)), picture(2)),
            (sample("c", "test", "Three.", ("Rain.",)), picture(3)),
        ],
    )
    result = inspect_shards(one, two)
    assert result["other"]["all"]["samples"] == 2
    shared = {where for where, counts in leaks_of(result).items() if any(counts)}
    assert shared == {("train", "other test", "article")}


def test_empty_texts_and_plain_pictures_are_no_leaks(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "navy").save(buffer, "JPEG")
    plain = buffer.getvalue()
    empty = sample("a", "train", "")
    index = write(tmp_path, [(empty, plain), (replace(empty, key="b", split="val"), plain + b"\0")])
    result = inspect_shards(index)
    assert {kind: row["shared"] for kind, row in zip(LEAKS, result["leaks"], strict=True)} == dict.fromkeys(
        LEAKS, 0
    )
    assert result["set"]["all"]["articles"] == 0
    assert result["set"]["all"]["shares_of_samples_without"]["article"] == 1.0


def test_at_most_twenty_examples_are_given(tmp_path):
    samples = [
        (sample(f"{split}{n}", split, f"{split} {n}.", (f"Article {n}.",)), picture(0))
        for split in ("train", "val")
        for n in range(25)
    ]
    article = inspect_shards(write(tmp_path, samples), photos=False)["leaks"][0]
    assert (article["shared"], len(article["examples"]), article["examples"][19]) == (
        25,
        20,
        ["train19", "val19"],
    )


def test_a_resized_copy_looks_alike_and_another_photo_does_not():
    def look(jpeg: bytes) -> int:
        return difference_hash(Image.open(io.BytesIO(jpeg)))

    large = [picture(seed, (320, 240)) for seed in range(20)]
    assert all((look(one) ^ look(smaller(one))).bit_count() <= LOOK_BITS for one in large)
    assert all((look(large[0]) ^ look(other)).bit_count() > LOOK_BITS for other in large[1:])


HASHES = st.lists(st.integers(1, 2**64 - 1), unique=True, max_size=12)


@settings(derandomize=True, deadline=None)
@given(HASHES, HASHES, st.lists(st.tuples(st.integers(0, 11), st.sets(st.integers(0, 63), max_size=5))))
def test_alike_finds_exactly_the_pairs_that_differ_in_few_bits(a, b, copies):
    for place, flips in copies:  # else random hashes are never near
        if place < len(a):
            b.append(a[place] ^ sum(1 << flip for flip in flips))
    ones, others = (np.array(sorted({*side} - {0}), np.uint64) for side in (a, b))
    for bits in (0, LOOK_BITS):
        pairs = {(int(x), int(y)) for x, y in zip(*alike(ones, others, bits=bits), strict=True)}
        every = ((x, y) for x in ones.tolist() for y in others.tolist())
        assert pairs == {(x, y) for x, y in every if (x ^ y).bit_count() <= bits}


def test_hashes_are_compared_in_chunks_none_of_which_is_forgotten(monkeypatch):
    numbers = np.random.default_rng(0).integers(1, 2**20, 300).astype(np.uint64)
    ones, others = np.unique(numbers[:150]), np.unique(numbers[150:] ^ np.uint64(5))
    whole = {pair for pair in zip(*(side.tolist() for side in alike(ones, others, bits=3)), strict=True)}
    monkeypatch.setattr(leaks, "_CHUNK", 100)
    chunked = {pair for pair in zip(*(side.tolist() for side in alike(ones, others, bits=3)), strict=True)}
    assert chunked == whole
    assert len(whole) > 20
