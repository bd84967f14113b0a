"""What `inspect_shards` tells of sets so small that the figures were counted by hand."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ealign_plugin.data.inspection import leaks
from ealign_plugin.data.inspection.distribution import MAX_BINS, distribution
from ealign_plugin.data.inspection.figures import DISTRIBUTIONS, inspect_shards, verify_shards
from ealign_plugin.data.inspection.leaks import LEAKS, LOOK_BITS, alike, difference_hash
from ealign_plugin.data.shards.index import ShardIndex
from ealign_plugin.data.shards.write import write_index, write_split
from ealign_plugin.errors import UserError
from ealign_plugin.news import Entity, NewsSample, Sentence

LABELS = {"Ana Ruiz": "PERSON", "Bob": "PERSON", "Oslo": "GPE", "May ": "DATE"}


def named(text: str) -> tuple[Entity, ...]:
    return tuple(
        Entity(name.strip(), label, text.index(name)) for name, label in LABELS.items() if name in text
    )


def sample(
    key: str, split: str, caption: str, *paragraphs: tuple[str, ...], found: bool = True
) -> NewsSample:
    """A sample whose paragraphs are given sentence by sentence; without entities there if not ``found``."""
    texts = [" ".join(sentences) for sentences in paragraphs]
    return NewsSample(
        key=key,
        split=split,
        caption=caption,
        caption_entities=named(caption),
        paragraphs=tuple(texts),
        sentences=tuple(
            Sentence(sentence, number, texts[number].index(sentence), named(sentence) if found else ())
            for number, sentences in enumerate(paragraphs)
            for sentence in sentences
        ),
    )


def picture(seed: int, size: tuple[int, int] = (64, 48)) -> bytes:
    """A JPEG file of random soft patches."""
    patches = np.random.default_rng(seed).integers(0, 255, (8, 9, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(patches).resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def write(folder, samples: list[tuple[NewsSample, bytes]]) -> ShardIndex:
    rows = {}
    for split in dict.fromkeys(one.split for one, _ in samples):
        rows[split] = write_split([pair for pair in samples if pair[0].split == split], folder, split)
    write_index(folder, rows, source="hand", ner={"name": "none", "version": "1"}, options={})
    return ShardIndex.load(folder)


ARTICLE = (("Ana Ruiz spoke in Oslo.",), ("It rained.", "The Oslo mayor left."))
SAMPLES = [
    (sample("a1", "train", "Oslo: Ana Ruiz and Bob in May .", *ARTICLE), picture(1)),
    (sample("a2", "train", "A street.", *ARTICLE), picture(2, (32, 32))),
    (sample("b1", "val", "Bob ’s day.", ("He met Bob.",), found=False), picture(3, (200, 100))),
]


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory):
    index = write(tmp_path_factory.mktemp("hand"), SAMPLES)
    return inspect_shards(index, first_words=(1, 2, 5))["set"]


def test_samples_articles_and_lengths_are_counted(by_hand):
    train = by_hand["splits"]["train"]
    assert (train["samples"], train["articles"], train["bad_samples"]) == (2, 1, {})
    means = {name: found["mean"] for name, found in train["distributions"].items()}
    assert means == {
        "words_per_caption": (8 + 2) / 2,
        "words_per_sentence": pytest.approx((5 + 2 + 4) / 3),  # the article counts once, not once a photo
        "words_per_article": 11,
        "sentences_per_article": 3,
        "photos_per_article": 2,
        "positive_sentences_per_sample": (2 + 0) / 2,
        "negative_sentences_per_sample": (1 + 3) / 2,
        "photo_width_pixels": 48,
        "photo_height_pixels": 40,
        "photo_short_side_pixels": 40,
        "photo_file_kibibytes": sum(-(-len(SAMPLES[i][1]) // 1024) for i in (0, 1)) / 2,
    }
    assert by_hand["all"]["articles"] == 2
    assert by_hand["all"]["distributions"]["photos_per_article"]["mean"] == 1.5
    assert by_hand["all"]["most_common_photo_sizes"][0] == {
        "width_pixels": 64,
        "height_pixels": 48,
        "photos": 1,
    }


def test_captions_that_name_nobody_are_counted(by_hand):
    assert by_hand["splits"]["train"]["shares_of_samples_without"] == {
        "article": 0.0,
        "caption_entities": 0.5,
        "visual_caption_entities": 0.5,
        "positive_sentences": 0.5,
    }


def test_a_date_is_an_entity_but_no_visual_one(tmp_path):
    index = write(tmp_path, [(sample("a", "test", "In May .", ("In May it rained.",)), picture(0))])
    without = inspect_shards(index)["set"]["all"]["shares_of_samples_without"]
    assert (without["caption_entities"], without["visual_caption_entities"]) == (0.0, 1.0)
    assert without["positive_sentences"] == 1.0


def test_the_ceiling_of_copying_is_the_share_of_caption_entities_in_the_article(by_hand):
    # Oslo ends with the 5th word, Ana Ruiz with the 2nd; Bob is not there, and "mayor" is no "May".
    shares = by_hand["splits"]["train"]["shares_of_caption_entities"]
    reached = {"1": 0.0, "2": 0.25, "5": 0.5}
    expected = {"in_article": 0.5, "in_positive_sentences": 0.5, "in_first_words": reached}
    assert shares == {"as_text": expected, "as_entity": expected}
    assert by_hand["splits"]["train"]["caption_entities"] == 4


def test_a_name_that_ner_missed_in_the_article_is_found_as_text_only(by_hand):
    shares = by_hand["splits"]["val"]["shares_of_caption_entities"]
    assert shares["as_text"]["in_article"] == 1.0
    assert shares["as_text"]["in_first_words"] == {"1": 0.0, "2": 0.0, "5": 1.0}
    assert shares["as_entity"]["in_article"] == 0.0
    assert shares["as_text"]["in_positive_sentences"] == 0.0  # nothing is positive


def test_all_is_all_splits_together(by_hand):
    shares = by_hand["all"]["shares_of_caption_entities"]
    assert shares["as_text"]["in_article"] == pytest.approx(3 / 5)
    assert shares["as_entity"]["in_article"] == pytest.approx(2 / 5)


def test_entities_are_counted_by_type_the_most_common_in_captions_first(by_hand):
    found = by_hand["all"]["entities_by_type"]
    assert list(found) == ["PERSON", "GPE", "DATE"]
    rows = [tuple(row.values()) for row in found.values()]
    assert rows == [(3, 1, pytest.approx(2 / 3)), (1, 2, 1.0), (1, 0, 0.0)]


def test_a_name_is_found_across_paragraphs_but_its_words_are_counted_there(tmp_path):
    one = sample(
        "a", "test", "Ana Ruiz smiles.", ("One two three.",), ("Four ANA\tRUIZ’S five.",), found=False
    )
    index = write(tmp_path, [(one, picture(0))])
    first = inspect_shards(index, first_words=(5, 6))["set"]["all"]["shares_of_caption_entities"]
    assert first["as_text"]["in_first_words"] == {"5": 0.0, "6": 1.0}


def test_the_result_is_made_of_json_values(index):
    result = inspect_shards(index)
    assert json.loads(json.dumps(result)) == result
    assert set(result["set"]["all"]["distributions"]) == set(DISTRIBUTIONS)


def test_a_limit_holds_for_every_split(index):
    result = inspect_shards(index, limit=3)["set"]
    assert {split: part["samples"] for split, part in result["splits"].items()} == {"train": 3, "test": 3}


def test_an_empty_split_has_no_shares(tmp_path):
    write_index(tmp_path, {"val": []}, source="none", ner={"name": "none", "version": "1"}, options={})
    nothing = inspect_shards(ShardIndex.load(tmp_path))["set"]["splits"]["val"]
    assert nothing["samples"] == 0
    assert nothing["shares_of_caption_entities"]["as_text"]["in_article"] is None
    assert nothing["distributions"]["words_per_caption"]["mean"] is None


# Bad input


def index_of(folder, *shards) -> ShardIndex:
    return ShardIndex(folder, {"train": shards}, {"name": "none", "version": "1"}, {})


def members(key: str, photo: bytes | None, record: bytes | None) -> list[tuple[str, bytes]]:
    both = ((f"{key}.jpg", photo), (f"{key}.json", record))
    return [(name, content) for name, content in both if content is not None]


def test_bad_samples_are_left_out_and_counted_by_cause(tar_of, tmp_path, news, photo):
    good = json.dumps(news().to_json()).encode()
    shard = tar_of(
        [
            *members("good", photo(1), good),
            *members("no photo", None, good),
            *members("no record", photo(1), None),
            *members("no json", photo(1), b"{"),
            *members("no json either", photo(1), b"["),
            *members("no picture", b"GIF, they said", good),
        ]
    )
    figures = inspect_shards(index_of(tmp_path, shard))["set"]["splits"]["train"]
    assert figures["samples"] == 1
    assert figures["bad_samples"] == {
        "its JSON is broken": 2,
        "there is no photo": 1,
        "there is no record": 1,
        "it is no picture in a known format": 1,
    }


def test_a_shard_that_breaks_off_is_named_and_the_others_are_read(tar_of, tmp_path, news, photo):
    record = json.dumps(news().to_json()).encode()
    broken, whole = (tar_of(members(key, photo(1), record)) for key in "ab")
    broken.path.write_bytes(broken.path.read_bytes()[:700])
    result = inspect_shards(index_of(tmp_path, broken, whole))["set"]
    assert result["all"]["samples"] == 1
    assert [broken.path.name in message for message in result["unreadable_shards"]] == [True]


def test_without_photos_none_is_opened(tar_of, tmp_path, news):
    shard = tar_of(members("a", b"no picture at all", json.dumps(news().to_json()).encode()))
    result = inspect_shards(index_of(tmp_path, shard), photos=False)
    assert result["set"]["all"]["samples"] == 1
    assert result["set"]["all"]["distributions"]["photo_width_pixels"]["count"] == 0
    assert result["set"]["all"]["distributions"]["photo_file_kibibytes"]["max"] == 1
    assert "photo_look" not in {row["kind"] for row in result["leaks"]}


def test_halves_of_characters_are_no_obstacle(tar_of, tmp_path, news, photo):
    record = news().to_json() | {"caption": "\ud800", "caption_entities": []}
    shard = tar_of(members("a", photo(1), json.dumps(record).encode()))
    assert inspect_shards(index_of(tmp_path, shard))["set"]["all"]["samples"] == 1


def test_verify_counts_shards_and_names_those_that_differ(shards_of, tmp_path):
    index = shards_of(tmp_path / "set", {"train": 4})
    assert verify_shards(index) == 2
    changed = bytearray(index.shards["train"][1].path.read_bytes())
    changed[600] ^= 1
    index.shards["train"][1].path.write_bytes(changed)
    with pytest.raises(UserError, match=r"1 of 2 shards differ .*\(train-000001.tar\)"):
        verify_shards(index)


# Leaks


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


# Distributions


@settings(derandomize=True, deadline=None)
@given(st.dictionaries(st.integers(0, 10**6), st.integers(1, 20), min_size=1, max_size=40))
def test_a_distribution_agrees_with_the_list_of_all_its_numbers(counts):
    numbers = np.repeat(list(counts), list(counts.values()))
    found = distribution(counts)
    assert found["count"] == len(numbers)
    assert found["mean"] == pytest.approx(numbers.mean())
    expected = np.percentile(numbers, [0, 5, 50, 95, 100]).tolist()
    assert [found[name] for name in ("min", "p5", "median", "p95", "max")] == pytest.approx(expected)

    bins = found["histogram"]
    edges = [bins["first"] + place * bins["bin_width"] for place in range(len(bins["counts"]))]
    assert bins["counts"] == np.histogram(numbers, [*edges, np.inf])[0].tolist()
    assert len(edges) <= MAX_BINS and bins["first"] <= found["min"]


def test_a_long_tail_stands_in_the_last_bin():
    bins = distribution({n: 100 for n in range(10)} | {5000: 1})["histogram"]
    assert bins == {"first": 0, "bin_width": 1, "counts": [100] * 9 + [101]}
