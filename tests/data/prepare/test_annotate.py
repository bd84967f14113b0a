"""A sample on its way into a shard: its photo, sentences and entities, or the cause why it is skipped."""

from __future__ import annotations

import io
import json
import os
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image
from spacy.language import Language

from ealign_plugin.data.prepare import annotate
from ealign_plugin.data.prepare.pipeline import SKIPPED_NAME
from ealign_plugin.data.shards.index import ShardIndex
from ealign_plugin.data.shards.read import read_shard
from tests.data.prepare.factories import run, samples, spoiled, write_source

# ------------------------------------------------------------------------------------------ what comes out


def test_samples_photos_sentences_and_entities_stand_in_the_shards(undisturbed):
    train = samples(undisturbed)
    assert [sample.key for sample in train] == [
        f"n{number:03d}_{photo}" for number in range(12) if number % 4 != 3 for photo in (0, 1)
    ]
    first = train[0]
    assert [sentence.text for sentence in first.sentences] == [
        "Angela Merkel came to Berlin.",
        "It rained.",
        "This is article 0.",
    ]
    assert [(entity.text, entity.label) for entity in first.sentences[0].entities] == [
        ("Angela Merkel", "PERSON"),
        ("Berlin", "GPE"),
    ]
    assert "Angela Merkel" in {entity.text for entity in first.caption_entities}
    raw = next(read_shard(ShardIndex.load(undisturbed).shards["train"][0]))
    assert Image.open(io.BytesIO(raw.image)).size == (48, 32)


def test_an_article_is_annotated_once_however_many_photos_it_has(tmp_path, monkeypatch):
    texts = []
    pipe = Language.pipe

    def watched(self, many, **options):
        return pipe(self, (texts.append(text) or text for text in many), **options)

    monkeypatch.setattr(Language, "pipe", watched)
    run(write_source(tmp_path / "in", articles=3, photos=3), tmp_path / "out")
    assert [texts.count(f"This is article {number}.") for number in range(3)] == [1, 1, 1]


def test_photos_become_upright_rgb_jpegs_of_the_size_asked_for(tmp_path):
    path = write_source(tmp_path / "in", articles=1)
    Image.new("CMYK", (600, 400)).save(tmp_path / "in" / "0_0.jpg", "JPEG")
    Image.new("RGBA", (300, 900)).save(tmp_path / "in" / "0_1.jpg", "PNG")
    out = tmp_path / "out"
    run(path, out, short_side=100, split="train")
    photos = [
        Image.open(io.BytesIO(raw.image)) for raw in read_shard(ShardIndex.load(out).shards["train"][0])
    ]
    assert [(photo.format, photo.mode, photo.size) for photo in photos] == [
        ("JPEG", "RGB", (150, 100)),
        ("JPEG", "RGB", (100, 300)),
    ]


# ----------------------------------------------------------------------------- the same whatever happens


def test_photos_may_be_urls_and_those_that_fail_are_skipped(tmp_path):
    folder = tmp_path / "in"
    path = write_source(folder, articles=20)
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        text = path.read_text().replace('"image": "', f'"image": "{address}/')
        path.write_text(text.replace("/0_0.jpg", "/gone.jpg"))
        index = run(path, tmp_path / "out")
        server.shutdown()
    assert index.record["skipped"] == {"photo missing": 1}
    assert index.samples("train") + index.samples("test") == 39


# ---------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (lambda folder: (folder / "0_0.jpg").unlink(), "photo missing"),
        (lambda folder: (folder / "0_0.jpg").write_bytes(b"<html>404</html>"), "photo broken"),
        (lambda folder: (folder / "0_0.jpg").write_bytes(b""), "photo broken"),
        (lambda folder: os.truncate(folder / "0_0.jpg", 400), "photo broken"),
        (
            lambda folder: ((folder / "0_0.jpg").unlink(), (folder / "0_0.jpg").mkdir()),
            "photo cannot be read",
        ),
    ],
    ids=["missing", "html", "empty", "cut off", "a folder"],
)
def test_a_bad_photo_is_skipped_counted_and_named(tmp_path, spoil, cause):
    index = run(spoiled(tmp_path / "in", spoil), tmp_path / "out")
    (found,) = index.record["skipped"]
    assert found.startswith(cause) and index.record["skipped"][found] == 1
    (line,) = (tmp_path / "out" / SKIPPED_NAME).read_text().splitlines()
    assert json.loads(line)["key"] == "n000_0"
    assert sum(map(index.samples, ("train", "test"))) == 39


def test_a_photo_whose_file_is_too_large_is_not_even_read(tmp_path, monkeypatch):
    monkeypatch.setattr(annotate, "MAX_IMAGE_BYTES", 10_000)
    path = spoiled(tmp_path / "in", lambda folder: (folder / "0_0.jpg").write_bytes(bytes(10_001)))
    assert run(path, tmp_path / "out").record["skipped"] == {"photo's file too large": 1}


def test_captions_without_names_are_counted_and_skipped_only_where_asked(tmp_path):
    def spoil(folder: Path) -> None:
        path = folder / "news.jsonl"
        path.write_text(path.read_text().replace("Angela Merkel in Berlin on 1 May.", "A quiet street."))

    path = spoiled(tmp_path / "in", spoil)
    kept = run(path, tmp_path / "kept")
    assert kept.record["captions_without_entities"] == 2 and kept.record["skipped"] == {}
    skipped = run(path, tmp_path / "skipped", require_entities=True)
    assert skipped.record["skipped"] == {"caption without entities": 2}
