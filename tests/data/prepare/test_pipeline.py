"""A source becomes shards: once, whole, the same bytes whatever happens on the way."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image
from spacy.language import Language

from ealign_plugin.data.prepare import annotate, engines
from ealign_plugin.data.prepare.annotate import PROGRESS, Job, ShardMaker
from ealign_plugin.data.prepare.pipeline import SKIPPED_NAME, prepare
from ealign_plugin.data.prepare.plan import plan
from ealign_plugin.data.readers import jsonl
from ealign_plugin.data.readers.source import Source
from ealign_plugin.data.shards.index import ShardIndex
from ealign_plugin.data.shards.read import decode_record, read_shard
from ealign_plugin.errors import UserError

PEOPLE = ("Angela Merkel", "Barack Obama", "Emmanuel Macron", "Serena Williams", "Lionel Messi")
PLACES = ("Berlin", "Paris", "Chicago", "London", "Madrid")


def write_source(folder: Path, articles: int = 12, photos: int = 2, weather: int = 1) -> Path:
    """News of one's own: JSON Lines beside their photos; ``weather`` makes the articles longer."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(articles):
        who, where = PEOPLE[number % 5], PLACES[number // 5 % 5]
        for photo in range(photos):
            name = f"{number}_{photo}.jpg"
            color = (number * 20 % 256, photo * 90, 128)
            Image.new("RGB", (48, 32), color).save(folder / name, "JPEG")
            record = {
                "id": f"n{number:03d}_{photo}",
                "image": name,
                "caption": f"{who} in {where} on {number + 1} May.",
                "article": [
                    f"{who} came to {where}. " + "It rained. " * weather,
                    f"This is article {number}.",
                ],
                "split": "test" if number % 4 == 3 else "train",
            }
            lines.append(json.dumps(record))
    path = folder / "news.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """12 articles with two photos each, every fourth in the test split; not to be changed by tests."""
    return write_source(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def undisturbed(source, tmp_path_factory) -> Path:
    """What one process makes of it; not to be changed by tests."""
    out = tmp_path_factory.mktemp("shards") / "out"
    run(source, out)
    return out


def job_values(source: Path, out: Path) -> dict:
    return {"source": "jsonl", "location": str(source), "out": str(out), "samples_per_shard": 4}


def job(source: Path, out: Path, **changes) -> Job:
    return Job(**{**job_values(source, out), **changes})


def run(source: Path, out: Path, *, processes: int = 1, max_skipped: float = 0.05, **changes) -> ShardIndex:
    return prepare(job(source, out, **changes), processes=processes, max_skipped=max_skipped, progress=False)


def files(folder: Path) -> dict[str, str]:
    """Every file below the folder with its digest."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def samples(out: Path, split: str = "train"):
    return [decode_record(raw) for shard in ShardIndex.load(out).shards[split] for raw in read_shard(shard)]


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


def test_the_index_tells_source_options_model_and_digests(source, undisturbed):
    record = ShardIndex.load(undisturbed).record
    assert record["source"] == "jsonl"
    assert record["ner"]["name"] == "en_core_web_sm"
    assert record["options"]["location"] == str(source)
    assert record["skipped"] == {}
    assert [row["samples"] for row in record["splits"]["train"]] == [4, 4, 4, 4, 2]
    for row in (row for rows in record["splits"].values() for row in rows):
        assert row["sha256"] == hashlib.sha256((undisturbed / row["name"]).read_bytes()).hexdigest()


def test_nothing_else_is_left(undisturbed):
    named = {row["name"] for rows in ShardIndex.load(undisturbed).record["splits"].values() for row in rows}
    assert {path.name for path in undisturbed.iterdir()} == named | {"index.json", SKIPPED_NAME}


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


def test_the_bytes_do_not_depend_on_the_number_of_processes(source, undisturbed, tmp_path):
    run(source, tmp_path / "out", processes=2)
    assert files(tmp_path / "out") == files(undisturbed)


def test_source_and_output_may_be_urls(source, undisturbed):
    from upath import UPath

    inside = UPath("memory://prepare/in")
    for path in source.parent.iterdir():
        (inside / path.name).parent.mkdir(parents=True, exist_ok=True)
        (inside / path.name).write_bytes(path.read_bytes())
    out = UPath("memory://prepare/out")
    run(inside / "news.jsonl", out)
    for row in ShardIndex.load(out).record["splits"]["train"]:
        assert (out / row["name"]).read_bytes() == (undisturbed / row["name"]).read_bytes()


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


def test_the_same_command_again_does_nothing(source, undisturbed, monkeypatch):
    before = files(undisturbed)
    monkeypatch.setattr(ShardMaker, "__call__", None)
    run(source, undisturbed)
    assert files(undisturbed) == before


def test_an_interrupted_call_goes_on_after_the_last_whole_shard(source, undisturbed, tmp_path, monkeypatch):
    made = []
    make = ShardMaker.__call__

    def interrupted(self, part):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(part.name)
        return make(self, part)

    monkeypatch.setattr(ShardMaker, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "out")
    assert not (tmp_path / "out" / "index.json").exists()
    again = []
    monkeypatch.setattr(
        ShardMaker, "__call__", lambda self, part: again.append(part.name) or make(self, part)
    )
    run(source, tmp_path / "out")
    assert len(made) == 3 and not set(made) & set(again)
    assert files(tmp_path / "out") == files(undisturbed)


def test_a_shard_that_was_lost_on_the_way_is_made_again(source, undisturbed, tmp_path, monkeypatch):
    make = ShardMaker.__call__

    def stops_at_the_last(self, part):
        if part.name == "test-000001.tar":
            raise KeyboardInterrupt
        return make(self, part)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ShardMaker, "__call__", stops_at_the_last)
        run(source, tmp_path / "out")
    (tmp_path / "out" / "train-000001.tar").write_bytes(b"half")
    (tmp_path / "out" / PROGRESS / "train-000002.tar.json").write_text("{")
    run(source, tmp_path / "out")
    assert files(tmp_path / "out") == files(undisturbed)


@pytest.mark.slow
def test_killed_at_ten_random_points_the_shards_are_those_of_an_undisturbed_run(tmp_path):
    source = write_source(tmp_path / "in", articles=60, weather=300)
    run(source, tmp_path / "whole")
    out, rng, kills = tmp_path / "out", random.Random(5), 0
    command = [
        sys.executable,
        "-m",
        "ealign_plugin.cli",
        "prepare",
        "jsonl",
        str(source),
        "--out",
        str(out),
    ]
    command += ["--samples-per-shard", "4", "--processes"]
    while kills < 10:
        process = subprocess.Popen(
            [*command, str(1 + kills % 2)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        before = len(list(out.glob("*.tar")))
        if kills % 3:  # in the middle of the work, else at any time from the start on
            while process.poll() is None and len(list(out.glob("*.tar"))) == before:
                time.sleep(0.01)
            time.sleep(rng.uniform(0.0, 0.3))
        else:
            time.sleep(rng.uniform(0.0, 2.5))
        process.send_signal(signal.SIGKILL)
        errors = process.communicate()[1]
        assert process.returncode == -signal.SIGKILL, errors
        kills += 1
    assert 3 <= len(list(out.glob("*.tar"))) < 30 and not (out / "index.json").exists()
    subprocess.run([*command, "2"], check=True, capture_output=True)
    assert files(out) == files(tmp_path / "whole")


def test_processes_end_with_a_parent_that_was_killed(source, tmp_path):
    code = f"""
import multiprocessing, os, sys
from ealign_plugin.data.prepare.engines import _start
from ealign_plugin.data.prepare.annotate import Job, ShardMaker
from concurrent.futures import ProcessPoolExecutor
if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    job = Job(source="jsonl", location="x", out={str(tmp_path)!r})
    state = (ShardMaker, job, context.Value("Q", 0))
    with ProcessPoolExecutor(1, context, initializer=_start, initargs=state) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        os.kill(os.getpid(), 9)
"""
    script = tmp_path / "parent.py"
    script.write_text(code)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    child = int(done.stdout)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists()


# ---------------------------------------------------------------------------------------------- bad input


def spoiled(folder: Path, spoil) -> Path:
    """40 photos, of which ``spoil(folder)`` breaks some."""
    path = write_source(folder, articles=20)
    spoil(folder)
    return path


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


def test_too_many_bad_records_stop_the_job_with_a_table_and_lose_nothing(tmp_path):
    def spoil(folder: Path) -> None:
        for photo in folder.glob("1*_0.jpg"):
            photo.unlink()

    path = spoiled(tmp_path / "in", spoil)
    with pytest.raises(
        UserError, match=r"11 of 40 records were skipped, at most 5% may be: 11 × photo missing"
    ):
        run(path, tmp_path / "out")
    assert not (tmp_path / "out" / "index.json").exists()
    assert run(path, tmp_path / "out", max_skipped=0.5).record["skipped"] == {"photo missing": 11}


def test_a_hopeless_source_is_given_up_early(tmp_path):
    path = write_source(tmp_path / "in", articles=1)
    path.write_text((path.read_text().splitlines()[0] + "\n") * 3000)
    with pytest.raises(UserError, match=r"51 of \d+ records were skipped, .*: 51 × key occurs twice"):
        run(path, tmp_path / "out")


def test_a_source_without_any_sample_is_refused(tmp_path):
    path = tmp_path / "news.jsonl"
    path.write_text("\n")
    with pytest.raises(UserError, match="no sample that can be used"):
        run(path, tmp_path / "out")


def test_other_options_do_not_mix_with_what_is_there(source, undisturbed, tmp_path):
    with pytest.raises(UserError, match=r"made with quality 90, 50 is wanted now \(index.json\)"):
        run(source, undisturbed, quality=50)


def test_a_call_that_made_nothing_binds_nobody_to_its_options(source, tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(UserError, match="no sample that can be used"):
        run(tmp_path / "empty.jsonl", tmp_path / "out")
    assert run(source, tmp_path / "out", quality=50).record["options"]["quality"] == 50


def test_a_folder_with_other_files_is_left_alone(source, tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="holds other files; choose an empty or a new one"):
        run(source, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"short_side": 3}, "--short-side: a number from 16 to 10000 was expected, found 3"),
        ({"quality": 100}, "--quality: a number from 1 to 95"),
        ({"samples_per_shard": 0}, "--samples-per-shard: a number from 1"),
        ({"limit": 0}, "--limit: a number from 1"),
        ({"split": "dev"}, "--split: one of train, val, test was expected, found 'dev'"),
        ({"ner": "xx_no_such"}, "no NER model"),
        ({"source": "flickr"}, "source: one of goodnews, "),
        ({"out": "nowhere://x"}, "URLs of this kind cannot be opened"),
    ],
)
def test_an_impossible_option_is_one_clear_error(source, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        prepare(Job(**{**job_values(source, tmp_path / "out"), **changes}), progress=False)


class Dies(ShardMaker):
    """Ends its process as the kernel does when memory runs out."""

    def __call__(self, part):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_dies_is_one_clear_error(source, tmp_path):
    part = next(plan(jsonl.read(Source(str(source))), samples_per_shard=4))
    with pytest.raises(UserError, match="a process was killed, .* lower --processes"):
        list(engines.local(job(source, tmp_path / "out"), [part] * 4, 2, lambda _: None, Dies))
