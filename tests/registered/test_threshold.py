"""``run.threshold: auto`` in whole runs: chosen once, kept, and taken by whoever comes after."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from lavis.common.registry import registry

import ealign_plugin
from ealign_plugin.cli import train
from ealign_plugin.entities import DEFAULT_NER
from ealign_plugin.errors import UserError
from ealign_plugin.news import NewsSample, Sentence
from ealign_plugin.training.checkpoints.store import find_checkpoint
from tests.factories import plain_jpeg, write_shards
from tests.inference.factories import sample

pytestmark = pytest.mark.slow

CONFIG: dict[str, Any] = {
    "model": {"arch": "ealign_instructblip", "model_type": "micro"},
    "datasets": {
        "ealign_news": {
            "build_info": {"images": {"storage": "shards"}},
            "vis_processor": {kind: {"name": "ealign_image", "image_size": 64} for kind in ("train", "eval")},
        }
    },
    "run": {
        **{"task": "ealign_news_captioning", "runner": "ealign_runner", "device": "cpu", "num_workers": 0},
        **{"max_iters": 2, "iters_per_inner_epoch": 1, "batch_size_train": 8, "batch_size_eval": 2},
        **{"init_lr": 1.0e-3, "valid_splits": ["val"], "valid_contexts": ["head"], "agg_metric": "rouge"},
        **{"contexts": ["refined"], "metrics": ["captions", "entities"], "num_beams": 1, "max_len": 4},
        **{"threshold": "auto", "threshold_figure": "rouge"},
    },
}


def news(key: str, split: str) -> NewsSample:
    """Of its three sentences one is about the photo."""
    one = sample(key)
    wind = Sentence("Wind came.", 0, one.sentences[-1].start + len(one.sentences[-1].text) + 1)
    paragraphs = (f"{one.paragraphs[0]} {wind.text}",)
    return replace(one, split=split, paragraphs=paragraphs, sentences=(*one.sentences, wind))


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """``start("train", run.threshold=auto)`` -> the run's folder."""
    monkeypatch.chdir(tmp_path)
    for kept in ("state", "paths"):  # of LAVIS's registry, which lasts as long as the process
        monkeypatch.setitem(registry.mapping, kept, dict(registry.mapping[kept]))
    splits = {
        split: [(news(f"{split}{number}", split), plain_jpeg()) for number in range(3)]
        for split in ("train", "val", "test")
    }
    write_shards(tmp_path / "shards", splits, ner=DEFAULT_NER)
    Path("run.yaml").write_text(yaml.safe_dump(CONFIG))

    def run(command: Any, *arguments: str) -> Path:
        train.run(command, ["--cfg-path", "run.yaml", *arguments])
        return max(Path("output/ealign_news_captioning").glob("2*"), key=lambda path: path.stat().st_mtime_ns)

    return run


def report_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "metrics.json").read_text())["test"]


def test_it_is_chosen_once_kept_with_the_checkpoint_and_taken_by_all(start, monkeypatch, caplog):
    caplog.set_level("INFO")
    resumable = ("--options", "run.resume=auto")
    run = start("train", *resumable).resolve()
    choice = report_of(run)["threshold_choice"]
    assert (choice["figure"], choice["context"], choice["split"], choice["photos"]) == (
        "rouge",
        "refined",
        "val",
        3,
    )
    assert report_of(run)["threshold"] == choice["threshold"] != 0.5
    best = find_checkpoint(run, best=True)  # whole, by its manifest
    settings = json.loads((best.folder / "captioning.json").read_text())
    assert (settings["inference"]["threshold"], settings["threshold_choice"]) == (choice["threshold"], choice)
    assert (
        ealign_plugin.NewsCaptioner.from_checkpoint(run, device="cpu").options.threshold
        == choice["threshold"]
    )
    console = (run / "console.log").read_text()
    assert console.count("Threshold ") == len(choice["candidates"]) + 1

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("it was chosen already")

    monkeypatch.setattr("ealign_plugin.inference.threshold.choose_threshold", never)
    again = start("evaluate", "--checkpoint", str(run))
    assert again.resolve() != run and report_of(again) == report_of(run)
    # A run that was interrupted in its test: the same command ends in the same files.
    before = report_of(run)
    (run / "metrics.json").unlink()
    assert start("train", *resumable).resolve() == run
    assert report_of(run) == before


def test_a_checkpoint_without_it_is_measured_anew_or_refused(start):
    run = start("train", "--options", "run.threshold=0.5").resolve()
    assert report_of(run)["threshold"] == 0.5 and "threshold_choice" not in report_of(run)
    content = (run / "checkpoints" / "best" / "captioning.json").read_bytes()
    again = start("evaluate", "--checkpoint", str(run))
    assert report_of(again)["threshold_choice"]["split"] == "val"
    assert (run / "checkpoints" / "best" / "captioning.json").read_bytes() == content
    with pytest.raises(UserError, match="captioning.json|there is no validation split"):
        start("evaluate", "--checkpoint", str(run), "--options", "run.valid_splits=[]")
