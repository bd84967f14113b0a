"""``ealign select`` as a user meets it: a checkpoint and shards in, a file that a recipe reads out."""

from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner

from ealign_plugin.alignment.own_selections import half_of, read_selections
from ealign_plugin.cli.select import select
from ealign_plugin.data.shards.index import ShardIndex
from ealign_plugin.errors import UserError
from ealign_plugin.host.config import load_config
from ealign_plugin.models import InstructBlip
from ealign_plugin.registered.task import NewsCaptioning
from tests.factories import drawn_jpeg, news_sample, write_shards
from tests.inference.factories import RUN, save

SAMPLES = [news_sample(number, photo) for number in range(4) for photo in (0, 1)]


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder, {"train": [(one, drawn_jpeg(seed)) for seed, one in enumerate(SAMPLES)]})
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """Random weights that select every sentence, and the settings that a run writes beside them."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "run.yaml").write_text(RUN.replace("num_beams: 2", "num_beams: 1\n  threshold: null"))
    cfg = load_config(folder / "run.yaml")
    torch.manual_seed(3)
    save(folder, InstructBlip.from_config(cfg.model_cfg), iters=4)
    made = folder / "checkpoints" / "iter_000004"
    for name, content in NewsCaptioning.setup_task(cfg).checkpoint_files().items():
        (made / name).write_bytes(content)
    return made


def run(*words: Any) -> Any:
    app = typer.Typer()
    app.command()(select)
    return CliRunner().invoke(app, [str(word) for word in words])


def refused(*words: Any) -> str:
    result = run(*words)
    assert isinstance(result.exception, UserError), result.output
    return str(result.exception)


def test_the_file_holds_what_the_model_selects_of_each_photo(checkpoint, shards, tmp_path):
    out = tmp_path / "own.jsonl"
    done = run(checkpoint, shards, "--out", out, "--device", "cpu", "--batch-size", 3)
    assert done.exit_code == 0, done.exception
    assert f"{out}: 8 photos, 3.00 sentences each" in done.output
    for sample in SAMPLES:
        selection = read_selections(out).of(sample)
        assert selection is not None and selection.sentences == (0, 1, 2)
        assert selection.scores is not None and all(0 < score < 1 for score in selection.scores)


def test_the_halves_are_apart_and_give_the_whole(checkpoint, shards, tmp_path):
    for half in (0, 1):
        done = run(checkpoint, shards, "--out", tmp_path / str(half), "--half", half, "--device", "cpu")
        assert done.exit_code == 0, done.exception
        found = read_selections(tmp_path / str(half)).found
        assert set(found) == {one.key for one in SAMPLES if half_of(one) == half} != set()


def test_mistakes_of_a_user_are_one_line(checkpoint, shards, tmp_path):
    out = tmp_path / "own.jsonl"
    assert refused(checkpoint, shards, "--out", out, "--split", "tarin").startswith(
        "--split: unknown split 'tarin'; did you mean 'train'?"
    )
    assert refused(checkpoint, shards, "--out", out, "--split", "val") == (
        f"--split: 'val' found, {shards} holds train"
    )
    out.write_text("")
    assert "exists already, a new file expected" in refused(checkpoint, shards, "--out", out)
    out.unlink()
    assert "no such folder of shards" in refused(checkpoint, tmp_path / "none", "--out", out)
    assert not out.exists() and ShardIndex.load(shards).samples("train") == 8
