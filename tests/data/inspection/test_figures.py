"""What `inspect_shards` counts in sets so small that the figures were counted by hand."""

from __future__ import annotations

import json

import pytest

from ealign_plugin.data.inspection.figures import DISTRIBUTIONS, inspect_shards, verify_shards
from ealign_plugin.data.shards.index import ShardIndex
from ealign_plugin.data.shards.write import write_index
from ealign_plugin.errors import UserError
from tests.data.inspection.factories import picture, sample, write

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
