"""MicroNews on disk: made once, the same everywhere, whole or not at all, and never over somebody's files."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import stat
from pathlib import Path

import pytest
from PIL import Image

from ealign_plugin.alignment.selection import sentence_labels
from ealign_plugin.data.shards.index import ShardIndex
from ealign_plugin.data.shards.read import decode_record, read_shard
from ealign_plugin.errors import UserError
from ealign_plugin.micronews import make
from ealign_plugin.micronews.make import make_micronews

WORLD = {"articles": {"train": 3, "val": 1}, "seed": 5, "size": 64, "processes": 1, "progress": False}


@pytest.fixture(scope="module", autouse=True)
def one_ner():
    """spaCy's model, loaded once for this module."""
    load, loaded = make.load_ner, {}

    def cached(name: str):
        return loaded.get(name) or loaded.setdefault(name, load(name))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(make, "load_ner", cached)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> ShardIndex:
    """The world above; not to be changed by tests."""
    return make_micronews(tmp_path_factory.mktemp("made") / "micronews", **WORLD)


@pytest.fixture
def copy(made, tmp_path) -> Path:
    """A copy of it, in a folder that holds nothing else."""
    folder = tmp_path / "own" / "micronews"
    folder.mkdir(parents=True)
    for file in made.folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def content(folder: Path) -> dict[str, str]:
    """Hashes of everything in a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)
    }


def change_index(folder: Path, **changes) -> None:
    record = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps({**record, **changes}))


def test_every_article_has_four_annotated_photos(made):
    assert {split: made.samples(split) for split in made.shards} == {"train": 12, "val": 4}
    assert made.ner["name"] == "en_core_web_sm"
    for raw in read_shard(made.shards["train"][0]):
        sample = decode_record(raw)
        assert (sample.split, sample.source) == ("train", "micronews")
        assert {entity.label for entity in sample.caption_entities} >= {"PERSON", "DATE"}
        assert True in sentence_labels(sample) and False in sentence_labels(sample)
        photo = Image.open(io.BytesIO(raw.image))
        assert (photo.format, photo.size) == ("JPEG", (64, 64))


def test_the_first_world_is_made_as_it_was(tmp_path):
    """Its photos, captions and articles are the ones that its figures were measured on."""
    index = make_micronews(tmp_path, **{**WORLD, "kind": "closed"})
    assert index.record["options"] == {"recipe": 1, "articles": {"train": 3, "val": 1}, "seed": 5, "size": 64}
    captions = [decode_record(raw).caption for raw in read_shard(index.shards["train"][0])]
    assert captions[0] == "James Okafor of Airbus in Sydney for the Glastonbury Festival on 20 January."


def test_the_second_call_reads_what_the_first_one_made(made, monkeypatch):
    before = content(made.folder)
    monkeypatch.setattr(make, "draw_scene", None)  # whoever draws now fails
    assert make_micronews(made.folder, **WORLD) == made
    assert content(made.folder) == before


@pytest.mark.parametrize("change", [{"seed": 6}, {"size": 48}, {"articles": {"train": 2, "val": 1}}])
def test_other_options_make_it_anew(copy, change):
    before = content(copy)
    index = make_micronews(copy, **{**WORLD, **change})
    assert index.samples("train") == 4 * {**WORLD, **change}["articles"]["train"]
    assert content(copy)["train-000000.tar"] != before["train-000000.tar"]
    assert list(copy.parent.iterdir()) == [copy]


def test_another_ner_model_makes_it_anew(copy, made):
    change_index(copy, ner={"name": "en_core_web_trf", "version": "3.7.1"})
    assert make_micronews(copy, **WORLD).ner == made.ner


def test_the_bytes_depend_neither_on_the_number_of_processes_nor_on_the_place(made, tmp_path):
    two = make_micronews(tmp_path / "somewhere" / "else", **{**WORLD, "processes": 2})
    assert content(two.folder) == content(made.folder)


def test_others_may_read_it(made):
    """A cache is often shared; a temporary folder can be entered by its owner only."""
    os.umask(umask := os.umask(0))
    assert stat.S_IMODE(made.folder.stat().st_mode) == 0o777 & ~umask


@pytest.mark.parametrize("error", [RuntimeError("injected"), KeyboardInterrupt()])
def test_an_interrupted_making_leaves_nothing_behind(tmp_path, monkeypatch, error):
    interrupt(monkeypatch, error)
    with pytest.raises(type(error)):
        make_micronews(tmp_path / "micronews", **WORLD)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_remaking_leaves_the_old_one(copy, monkeypatch):
    before = content(copy)
    interrupt(monkeypatch, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        make_micronews(copy, **{**WORLD, "seed": 6})
    assert content(copy.parent) == {f"micronews/{name}": digest for name, digest in before.items()}


def interrupt(monkeypatch, error: BaseException) -> None:
    """The sixth photo is never drawn."""
    draw, drawn = make.draw_scene, []

    def draw_scene(scene, *how):
        drawn.append(scene)
        if len(drawn) == 6:
            raise error
        return draw(scene, *how)

    monkeypatch.setattr(make, "draw_scene", draw_scene)


def test_who_comes_second_keeps_what_the_first_one_made_meanwhile(made, copy, monkeypatch):
    """Two runs may start at once: the faster one is reading already."""
    shards = copy.parent / "shards"
    draw = make.draw_scene

    def draw_scene(*scene):
        if not shards.exists():
            copy.rename(shards)
        return draw(*scene)

    monkeypatch.setattr(make, "draw_scene", draw_scene)
    before = copy.stat().st_ino
    assert make_micronews(shards, **WORLD).folder == shards
    assert shards.stat().st_ino == before


# ------------------------------------------------------------------------- folders that are something else


def test_an_empty_folder_is_used(tmp_path):
    assert make_micronews(tmp_path, **WORLD).samples("val") == 4


def test_a_linked_folder_stays_a_link(copy, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(copy)
    make_micronews(link, **{**WORLD, "seed": 6})
    assert link.is_symlink() and ShardIndex.load(copy).record["options"]["seed"] == 6


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="is no finished MicroNews: .* choose another"):
        make_micronews(tmp_path, **WORLD)
    assert content(tmp_path).keys() == {"thesis.tex"}


def test_shards_of_another_source_are_refused(copy):
    change_index(copy, source="goodnews")
    with pytest.raises(UserError, match="holds shards of 'goodnews', not of MicroNews"):
        make_micronews(copy, **WORLD)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '"micronews"', "\x00\xff", "[" * 100_000])
def test_a_broken_index_is_refused(copy, text):
    (copy / "index.json").write_text(text)
    before = content(copy)
    with pytest.raises(UserError, match="choose another folder"):
        make_micronews(copy, **WORLD)
    assert content(copy) == before


def test_a_file_beside_the_shards_is_never_lost(copy):
    (copy / "notes.txt").write_text("mine")
    assert make_micronews(copy, **WORLD).samples("val") == 4  # nothing needs to be made
    with pytest.raises(UserError, match="'notes.txt' is there too and would be lost"):
        make_micronews(copy, **{**WORLD, "seed": 6})
    assert (copy / "notes.txt").read_text() == "mine"


def test_micronews_of_another_schema_version_is_made_again(copy, made):
    change_index(copy, schema=0)
    make_micronews(copy, **WORLD)
    assert content(copy) == content(made.folder)


@pytest.mark.parametrize("damage", [Path.unlink, lambda shard: os.truncate(shard, 1000)])
def test_damaged_micronews_is_made_again_and_says_so(copy, made, damage, caplog):
    damage(copy / "train-000000.tar")
    with caplog.at_level(logging.WARNING):
        make_micronews(copy, **WORLD)
    assert content(copy) == content(made.folder)
    assert "damaged and is made again" in caplog.text


@pytest.mark.parametrize("place", ["file", "file/micronews", "file/below/micronews"])
def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path, place):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="choose another folder"):
        make_micronews(tmp_path / place, **WORLD)
    assert content(tmp_path).keys() == {"file"}


# --------------------------------------------------------------------------------------------- bad options


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"articles": {"tset": 3}},
            "unknown split 'tset'; did you mean 'test'. Expected one of test, test_known, train, val",
        ),
        ({"articles": {"train": -1}}, "world.articles.train: a number of articles was expected, found -1"),
        ({"articles": {"train": "3"}}, "a number of articles was expected, found '3'"),
        ({"kind": "opne"}, "unknown world 'opne'; did you mean 'open'"),
        ({"size": 0}, "world.size: a number of pixels was expected, found 0"),
        ({"ner": "en_no_such_model"}, "no NER model"),
    ],
)
def test_an_impossible_option_is_refused_before_anything_is_written(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        make_micronews(tmp_path / "micronews", **{**WORLD, **change})
    assert list(tmp_path.iterdir()) == []


def test_splits_and_seeds_give_other_articles(made, tmp_path):
    def captions(index: ShardIndex, split: str) -> list[str]:
        return [decode_record(raw).caption for raw in read_shard(index.shards[split][0])]

    other = make_micronews(tmp_path / "other", **{**WORLD, "seed": 6})
    texts = [*captions(made, "train"), *captions(made, "val"), *captions(other, "train")]
    assert len(set(texts)) == len(texts) == 28


def test_the_annotation_covers_the_whole_article(made):
    """Sentences are spans of the paragraphs: all of them together leave only spaces."""
    for raw in read_shard(made.shards["val"][0]):
        sample = decode_record(raw)
        assert " ".join(s.text for s in sample.sentences) == " ".join(sample.paragraphs)
