"""One small news set in every format that is read: the same samples come out, down to the shards."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest
from PIL import Image

from ealign_plugin.data.prepare.annotate import Job
from ealign_plugin.data.prepare.pipeline import prepare
from ealign_plugin.data.readers import READERS
from ealign_plugin.data.shards.read import decode_record, read_shard
from tests.data.readers.mongo_files import write_archive, write_folder
from tests.data.readers.sources import (
    NEWS,
    photo,
    photos,
    write_goodnews_json,
    write_jsonl,
    write_llava,
    write_photo,
    write_vacnic,
    write_visualnews,
)


def goodnews_documents() -> dict:
    splits = [
        {"_id": key, "article_id": article.id, "image_index": str(one.idx), "split": one.split}
        for key, article, one in photos(NEWS)
    ]
    articles = []
    for article in NEWS:
        text = "\n\n".join(article.paragraphs)
        images = {str(one.idx): one.caption for one in article.photos}
        articles.append(
            {"_id": article.id, "images": images, "article": text, "context": f"{article.headline}\n\n{text}"}
        )
    return {"goodnews": {"splits": splits, "articles": articles}}


def nytimes_documents() -> dict:
    articles = []
    for article in NEWS:
        section: list[dict] = []
        for place in range(len(article.paragraphs) + 1):
            for one in article.photos:
                if one.position == place:
                    key = f"{article.id}_{one.idx}"
                    digest = hashlib.sha256(key.encode()).hexdigest()
                    section.append({"type": "caption", "order": one.idx, "text": one.caption, "hash": digest})
            if place < len(article.paragraphs):
                section.append({"type": "paragraph", "text": article.paragraphs[place]})
        split = {"val": "valid"}.get(article.photos[0].split, article.photos[0].split)
        headline = {"main": article.headline}
        articles.append({"_id": article.id, "headline": headline, "parsed_section": section, "split": split})
    return {"nytimes": {"articles": articles}}


def goodnews_archive(folder: Path) -> Path:
    for key, _, _ in photos(NEWS):
        write_photo(folder / "images_processed" / f"{key}.jpg", key)
    return write_archive(folder / "goodnews.gz", goodnews_documents(), zipped=True)


def goodnews_dump_folder(folder: Path) -> Path:
    for key, _, _ in photos(NEWS):
        write_photo(folder / "dump" / "images_processed" / f"{key}.jpg", key)
    return write_folder(folder / "dump", goodnews_documents())


def nytimes_archive(folder: Path) -> Path:
    for key, _, _ in photos(NEWS):
        digest = hashlib.sha256(key.encode()).hexdigest()
        write_photo(folder / "images_processed" / f"{digest}.jpg", key)
    return write_archive(folder / "nytimes.gz", nytimes_documents(), zipped=True)


def jsonl_zipped(folder: Path) -> Path:
    import gzip

    path = write_jsonl(folder)
    path.with_suffix(".jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
    return path.with_suffix(".jsonl.gz")


# Reader, files, and whether the format tells splits, headline and the photo's place in the article.
FORMATS = {
    "goodnews JSON": ("goodnews", write_goodnews_json, {"split", "headline"}),
    "goodnews archive": ("goodnews", goodnews_archive, {"split", "headline"}),
    "goodnews folder": ("goodnews", goodnews_dump_folder, {"split", "headline"}),
    "nytimes800k archive": ("nytimes800k", nytimes_archive, {"headline", "place"}),
    "visualnews": ("visualnews", write_visualnews, set()),
    "vacnic": ("vacnic", write_vacnic, {"split"}),
    "llava": ("llava", write_llava, {"split"}),
    "jsonl": ("jsonl", write_jsonl, {"split", "headline", "place"}),
    "jsonl.gz": ("jsonl", jsonl_zipped, {"split", "headline", "place"}),
}


@pytest.fixture(scope="module", params=FORMATS)
def prepared(request, tmp_path_factory):
    """Samples by caption, their photos' bytes, and what the format tells."""
    reader, write, tells = FORMATS[request.param]
    folder = tmp_path_factory.mktemp(reader)
    (folder / "in").mkdir()
    job = Job(source=reader, location=str(write(folder / "in")), out=str(folder / "out"))
    index = prepare(job, processes=1, progress=False)
    assert index.record["skipped"] == {}
    found = {}
    for split, shards in index.shards.items():
        for raw in (raw for shard in shards for raw in read_shard(shard)):
            sample = decode_record(raw)
            assert sample.split == split
            found[sample.caption] = (sample, raw.image)
    return found, tells


def test_every_sample_comes_out_with_its_article_and_its_photo(prepared):
    found, _ = prepared
    assert set(found) == {one.caption for _, _, one in photos(NEWS)}
    for key, article, one in photos(NEWS):
        sample, image = found[one.caption]
        assert sample.paragraphs == article.paragraphs
        colour = Image.open(io.BytesIO(photo(key))).getpixel((8, 8))
        assert Image.open(io.BytesIO(image)).getpixel((8, 8)) == colour


def test_photos_of_one_article_share_its_name_and_others_do_not(prepared):
    found, _ = prepared
    names = [{found[one.caption][0].article_id for one in article.photos} for article in NEWS]
    assert all(len(own) == 1 for own in names)
    assert len(set.union(*names)) == len(NEWS)


def test_what_the_format_tells_is_kept(prepared):
    found, tells = prepared
    for _, article, one in photos(NEWS):
        sample, _ = found[one.caption]
        assert sample.split == one.split or "split" not in tells
        assert sample.headline == (article.headline if "headline" in tells else "")
        assert sample.image_position == (one.position if "place" in tells else None)


def test_sentences_and_entities_are_the_same_whatever_the_format(prepared, tmp_path_factory):
    found, _ = prepared
    folder = tmp_path_factory.mktemp("reference")
    job = Job(source="jsonl", location=str(write_jsonl(folder / "in")), out=str(folder / "out"))
    for shard in (s for shards in prepare(job, processes=1, progress=False).shards.values() for s in shards):
        for reference in map(decode_record, read_shard(shard)):
            sample, _ = found[reference.caption]
            assert sample.sentences == reference.sentences
            assert sample.caption_entities == reference.caption_entities


def test_every_reader_is_tried_here():
    assert {reader for reader, _, _ in FORMATS.values()} == set(READERS)


def test_a_reader_and_a_file_that_does_not_fit_are_one_error_or_skipped_records(tmp_path):
    """Whatever reader is pointed at whatever format: no traceback."""
    from ealign_plugin.data.readers.source import ReadSample, Skipped, Source
    from ealign_plugin.errors import UserError

    for name, (_, write, _) in FORMATS.items():
        folder = tmp_path / name.replace(" ", "_")
        folder.mkdir()
        location = str(write(folder))
        for _, reader in READERS.items():
            try:
                assert all(isinstance(item, ReadSample | Skipped) for item in reader.read(Source(location)))
            except UserError as error:
                assert len(str(error).splitlines()) == 1
