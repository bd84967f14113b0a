"""Data sets of a dry run: what is in them, and whatever would stop the run is said at once."""

from __future__ import annotations

import itertools

import pytest
import torch
from lavis.runners import RunnerBase

from ealign_plugin.alignment.mixture import TaskMixture
from ealign_plugin.alignment.prompts import Wording
from ealign_plugin.cli.dry_run.data import samples_read
from ealign_plugin.data.shards.position import StreamPosition
from ealign_plugin.data.shards.read import RawSample
from ealign_plugin.data.streams.mixing import TaskMixer
from tests.cli.dry_run.factories import news, pretrained

# The plan


def test_photos_of_several_data_sets(dry, shards):
    data = {"ealign_news": shards("one", train=4, val=1), "ealign_goodnews": shards("two", train=2, test=3)}
    report = dry(
        "run.train_dataset_ratios={ealign_news: 3, ealign_goodnews: 1}",
        "datasets.ealign_news.recipe.tasks={caption: 1}",
        "datasets.ealign_goodnews.recipe.tasks={caption: 1}",
        "run.max_iters=100",
        data=data,
    )
    assert report.code == 0, report.error
    assert "ealign_news: about 2,400 samples read, 600.0 epochs of 4 photos" in report.plan
    assert "ealign_goodnews: about 800 samples read, 400.0 epochs of 2 photos" in report.plan
    assert "1 photos of val" in report.plan and "3 photos of test" in report.plan


@pytest.mark.parametrize(
    "recipe",
    [
        {"tasks": {"caption": 1}},
        {"tasks": {"caption": 2, "sentence": 3, "entity": 2}},
        {"tasks": {"sentence": 5, "entity": 0.3}, "positives": 3},
    ],
)
def test_as_many_samples_are_read_as_by_the_stream(recipe):
    mixer = TaskMixer(
        recipe=TaskMixture().changed(recipe),
        wording=Wording(),
        batch_size=32,
        phases=[{"until": 30, "tasks": {"entity": 1}}],
    )
    used = itertools.count()

    def stream():
        for number in used:
            yield RawSample(str(number), b"", b"", StreamPosition()), news(), torch.zeros(1)

    for _ in itertools.islice(mixer.mix(stream(), 0, 1), 90 * 32):
        pass
    assert samples_read(mixer, 90) == pytest.approx(next(used), rel=0.01)


# Data


def test_shards_that_are_missing_or_cut_off_are_told_beside_other_problems(dry, shards, tmp_path):
    data = {"ealign_news": shards("one", train=2, val=1), "ealign_goodnews": shards("two", train=2, test=1)}
    sorted((tmp_path / "one").glob("train*.tar"))[0].unlink()
    cut = sorted((tmp_path / "two").glob("train*.tar"))[1]
    cut.write_bytes(cut.read_bytes()[:100])
    report = dry(
        "run.contexts=[refind]",
        "datasets.ealign_goodnews.recipe.tasks={capton: 1}",
        data=data,
        model=pretrained("nowhere"),
    )
    assert report.code == 2 and not report.plan
    first, *others = report.error.splitlines()
    assert first == "error: run.yaml: 5 problems"
    assert any("one/train-000000.tar" in line and "nothing found" in line for line in others)
    assert any(
        "two/train-000001.tar" in line and "100 found" in line.replace(" bytes", "") for line in others
    )
    assert any("unknown context strategy 'refind'" in line for line in others)
    assert any("unknown alignment task 'capton'" in line for line in others)
    assert any("model.pretrained: 'nowhere': no such folder" in line for line in others)


def test_an_index_that_is_broken(dry, shards, tmp_path):
    data = {"ealign_news": shards("one", train=2, val=1, test=1)}
    (tmp_path / "one" / "index.json").write_text("{")
    report = dry(data=data)
    assert report.code == 2 and "one/index.json: it is no JSON" in report.error


def test_a_ner_model_that_is_not_installed(dry):
    report = dry("datasets.ealign_micronews.world.ner=en_core_web_huge")
    assert report.code == 2 and "spaCy has no model 'en_core_web_huge'" in report.error


def test_splits_that_no_data_set_has(dry, shards):
    section = shards("one", train=2, val=1) | {"splits": ["train", "val", "test"]}
    report = dry(data={"ealign_news": section})
    assert report.code == 2 and "run.test_splits: no data set has photos of the split 'test'" in report.error


def test_a_split_that_two_data_sets_have(dry, shards):
    data = {name: shards(name, train=1, val=1, test=1) for name in ("ealign_news", "ealign_goodnews")}
    report = dry("run.valid_splits=[]", data=data)
    assert "run.test_splits: 'test' found in ealign_goodnews, ealign_news" in report.error


def test_pictures_of_another_size_than_the_model_reads(dry):
    processor = "datasets.ealign_micronews.vis_processor.eval"
    report = dry(f"{processor}.image_size=32", f"{processor}.name=ealign_image")
    assert "datasets.ealign_micronews.vis_processor.eval.image_size: 32 found, 64 expected" in report.error


def test_shuffled_images_need_other_images(dry):
    report = dry("datasets.ealign_micronews.other_image=false")
    assert (
        "run.shuffled_images: true found, and datasets.ealign_micronews.other_image is false" in report.error
    )


def test_controls_with_other_photos_need_other_images(dry):
    off = ("datasets.ealign_micronews.other_image=false", "run.shuffled_images=false")
    error = dry("run.controls=[tfidf, other_photo_pass1]", *off).error
    assert (
        "run.controls: other_photo_pass1 found, and datasets.ealign_micronews.other_image is false" in error
    )
    assert dry("run.controls=[tfidf]", *off).code == 0


def test_a_runner_that_counts_epochs_does_not_read_an_endless_stream(dry, monkeypatch):
    monkeypatch.setattr(RunnerBase, "RUN_KEYS", {"clip_grad_norm": "of the other runner"}, raising=False)
    report = dry("run.runner=runner_base", "run.max_epoch=2", "run.max_iters=null")
    assert "run.runner: runner_base found, which counts epochs of data that end" in report.error


def test_a_rate_for_a_part_that_is_not_trained(dry):
    error = dry("run.lrs={lora: 0.1}").error
    assert "run.lrs: unknown part 'lora'" in error and "only trained parts have a rate" in error
