"""A source becomes shards: once, whole, the same bytes whatever happens on the way."""

from __future__ import annotations

import hashlib
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ealign_plugin.data.prepare.annotate import PROGRESS, Job, ShardMaker
from ealign_plugin.data.prepare.pipeline import SKIPPED_NAME, prepare
from ealign_plugin.data.shards.index import ShardIndex
from ealign_plugin.errors import UserError
from tests.data.prepare.factories import files, job_values, run, spoiled, write_source

# ------------------------------------------------------------------------------------------ what comes out


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


# ----------------------------------------------------------------------------- the same whatever happens


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


# ---------------------------------------------------------------------------------------------- bad input


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
