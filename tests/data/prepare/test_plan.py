"""Which samples a shard holds is decided from the source alone."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from upath import UPath

from ealign_plugin.data.prepare.plan import Part, plan
from ealign_plugin.data.readers.source import ReadSample, Skipped
from ealign_plugin.errors import UserError
from ealign_plugin.news import SPLITS, NewsSample


def found(key: str = "a_0", split: str = "train", article: str = "a", **changes) -> ReadSample:
    values = {"caption": "Ruiz in Oslo.", "paragraphs": (f"Article {article}.",), **changes}
    return ReadSample(NewsSample(key=key, split=split, article_id=article, **values), UPath("photo.jpg"))


def planned(items, size: int = 3) -> list[Part | Skipped]:
    return list(plan(items, samples_per_shard=size, max_characters=100))


def keys(part: Part) -> list[str]:
    return [item.sample.key for item in part.items]


def test_shards_close_at_the_end_of_an_article_and_hold_one_split():
    items = [
        *(found(f"a_{n}", article="a") for n in range(2)),
        found("b_0", "val", article="b"),
        *(found(f"c_{n}", article="c") for n in range(2)),
        found("d_0", article="d"),
    ]
    parts = planned(items)
    assert [(part.name, keys(part)) for part in parts] == [
        ("train-000000.tar", ["a_0", "a_1", "c_0", "c_1"]),
        ("train-000001.tar", ["d_0"]),
        ("val-000000.tar", ["b_0"]),
    ]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.sampled_from(SPLITS), st.integers(1, 4)), max_size=30),
    st.integers(1, 5),
)
def test_every_sample_is_in_one_shard_and_no_article_in_two(articles, size):
    items = [
        found(f"a{number}_{photo}", split, article=f"a{number}")
        for number, (split, photos) in enumerate(articles)
        for photo in range(photos)
    ]
    parts = planned(items, size)
    assert sorted(key for part in parts for key in keys(part)) == sorted(i.sample.key for i in items)
    homes: dict[str, set[str]] = {}
    for part in parts:
        assert {item.sample.split for item in part.items} == {part.split}
        for item in part.items:
            homes.setdefault(item.sample.article_id, set()).add(part.name)
    assert all(len(names) == 1 for names in homes.values())
    full = [part for part in parts if part.name != max(p.name for p in parts if p.split == part.split)]
    assert all(size <= len(part.items) < size + 4 for part in full)


@pytest.mark.parametrize(
    ("item", "cause"),
    [
        (found(key="a.b"), "key with a dot, a slash or a space"),
        (found(key="a/b"), "key with a dot, a slash or a space"),
        (found(key="a b"), "key with a dot, a slash or a space"),
        (found(key=""), "key with a dot, a slash or a space"),
        (found(caption="  "), "empty caption"),
        (found(paragraphs=()), "empty article"),
        (found(paragraphs=(" ", "\t")), "empty article"),
        (found(paragraphs=("x" * 101,)), "text too long"),
        (found(caption="\ud800"), "text is not Unicode"),
        (found(extra={"a": "\udfff"}), "text is not Unicode"),
        (found(extra={"a": {1, 2}}), "record is no JSON"),
        (found(split="dev"), "unknown split"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_stand_in_a_shard_is_skipped_with_its_cause(item, cause):
    skipped, part = planned([item, found("good_0")])
    assert (skipped.key, skipped.cause) == (item.sample.key, cause)
    assert keys(part) == ["good_0"]


def test_a_key_that_came_before_is_skipped_also_in_another_split():
    skipped, part = planned([found("a_0"), found("a_0", "val")])
    assert (skipped.key, skipped.cause) == ("a_0", "key occurs twice")
    assert part.split == "train"


def test_what_a_reader_skipped_passes_through():
    skip = Skipped("x", "missing field", "caption")
    assert planned([skip]) == [skip]


def test_it_reads_no_further_than_a_shard():
    def endless():
        number = 0
        while True:
            yield found(f"k{number}", article=str(number))
            number += 1

    part = next(plan(endless(), samples_per_shard=4))
    assert keys(part) == ["k0", "k1", "k2", "k3"]


def test_a_shard_of_no_samples_is_refused():
    with pytest.raises(UserError, match="--samples-per-shard: at least 1 was expected, found 0"):
        planned([], 0)
