"""``--dry-run``: the plan of a run in words; nothing is made."""

from __future__ import annotations

import os

from ealign_plugin.cli import train
from ealign_plugin.inference.controls.names import CONTROLS
from tests.cli.dry_run.factories import Report


def test_the_plan_of_the_embedded_world(dry, tmp_path, own_cache):
    report = dry()
    assert report.code == 0, report.error
    for part in (
        "ealign_instructblip, type micro random weights 2.5 M parameters, 2.5 M trained",
        f"ealign_micronews: {own_cache}/micronews-12-",
        "will be made (about a minute)",
        "photos: train 4,200, val 180, test 450; entities by en_core_web_sm",
        "3,200 steps × 32 examples (32 × 1 accumulated × 1 process) = 102,400",
        "13.1 epochs of 4,200 photos",
        "ealign_cosine: from 1.6e-05 up to 0.0015 in 96 steps, then down to 3e-05",
        "2 times: 180 photos of val × 1 context (refined)",
        "450 photos of test × 5 contexts (head, refined, supplemented, oracle, images shuffled)",
        "cpu; 1 process",
        "weights 9.4 MiB, gradients 9.4 MiB, optimiser 18.7 MiB",
        "Nothing was run; leave out --dry-run to start.",
    ):
        assert part in report.plan
    assert f"{tmp_path}/output/ealign_news_captioning/<date>_<time>" in report.plan


def test_the_plan_of_the_open_world_counts_every_control(root, tmp_path, own_cache, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "1000")
    command = ["--cfg-path", str(root / "projects" / "ealign" / "train.yaml"), "--dry-run"]
    assert train.main([*command, "--options", "run.device=cpu"]) == 0
    plan = " ".join(capsys.readouterr().out.split())
    assert "weights of micro" in plan
    assert "photos: train 5,600, val 160, test 320, test_known 60" in plan
    assert f"320 photos of test and 60 photos of test_known × {8 + len(CONTROLS)} contexts" in plan
    assert "warning" not in plan


def test_accumulation_processes_and_parts_with_their_own_rate(dry, monkeypatch):
    torchrun = {"RANK": "0", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "MASTER_ADDR": "x", "MASTER_PORT": "1"}
    for name, value in torchrun.items():
        monkeypatch.setitem(os.environ, name, value)
    report = dry("run.accum_grad_iters=2", "run.lrs={llm: 0.00015}", "run.warmup_steps=0")
    assert "3,200 steps × 256 examples (32 × 2 accumulated × 4 processes) = 819,200" in report.plan
    assert "from 0.0015 down to 3e-05; llm 0.1 times that" in report.plan
    assert "buckets" in report.plan
    monkeypatch.setitem(os.environ, "RANK", "1")
    assert dry() == Report(0, "", "")


def test_a_test_that_reads_more_than_the_training_ever_did_is_told_so(dry):
    assert "warning" not in dry().plan
    report = dry("run.contexts=[head, full]")
    assert report.code == 0, report.error
    assert "warning run.contexts: found full, which reads more than the budget" in report.plan


def test_controls_are_counted_beside_the_contexts(dry):
    report = dry("run.controls=[tfidf, other_photo]")
    assert "× 6 contexts (head, refined, supplemented, oracle, tfidf, images shuffled)" in report.plan


def test_own_selections_and_halves_are_told(dry):
    report = dry("run.own_selections_from=1600", "datasets.ealign_micronews.half=1")
    assert report.code == 0, report.error
    assert "the model's own selections in 128 photos after step 1,600 and every 100 steps" in report.plan
    assert "epochs of 2,100 photos, about half of all (half 1)" in report.plan


def test_mistakes_about_what_is_selected_are_told_together(dry):
    data = "datasets.ealign_micronews"
    report = dry("run.usual_context=refined", f"{data}.recipe.selections=none.jsonl", f"{data}.half=1")
    assert "run.usual_context: 'refined' needs pass 1; choose another context" in report.error
    assert "none.jsonl: it cannot be read (No such file or directory); write it again" in report.error
    assert "run.usual_words: found 81, expected at most 80" in dry("run.usual_words=81").error
    assert f"{data}.half: 0, 1 or null was expected, found 2" in dry(f"{data}.half=2").error
    report = dry("run.own_selections_from=9", f"{data}.batch_size=64")
    assert f"{data}.batch_size: found 64 beside run.own_selections_from, expected" in report.error


def test_an_evaluation_needs_no_training_split(dry, shards):
    report = dry("run.evaluate=true", "run.valid_splits=[]", data={"ealign_news": shards("one", test=2)})
    assert report.code == 0, report.error
    assert "2 photos of test × 4 contexts" in report.plan and "steps" not in report.plan
