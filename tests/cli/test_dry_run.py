"""``--dry-run``: everything that would stop a run is reported at once, the plan printed, nothing made."""

from __future__ import annotations

import io
import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub
import pytest
import torch
import yaml
from lavis.models import load_model
from lavis.runners import RunnerBase
from PIL import Image
from safetensors.torch import load_file, save_file

from ealign_plugin.alignment.mixture import TaskMixture
from ealign_plugin.alignment.prompts import Wording
from ealign_plugin.cli import train
from ealign_plugin.cli.dry_run.data import visits
from ealign_plugin.cli.dry_run.table import print_plan
from ealign_plugin.data.shards.position import StreamPosition
from ealign_plugin.data.shards.read import RawSample
from ealign_plugin.data.shards.write import write_index, write_split
from ealign_plugin.data.streams.mixing import TaskMixer
from ealign_plugin.entities import DEFAULT_NER
from ealign_plugin.models.weights.export import export
from ealign_plugin.news import Entity, NewsSample, Sentence
from ealign_plugin.registered.processors import MEAN, STD


class Report(NamedTuple):
    """What a command said: its exit code, stdout without the blanks of its columns, stderr."""

    code: int
    plan: str
    error: str


def news(**values: Any) -> NewsSample:
    """A sample that can give every task."""
    ruiz = (Entity("Ruiz", "PERSON", 0),)
    sentences = (Sentence("Ruiz came.", 0, 0, ruiz), Sentence("Rain.", 0, 11, ()))
    given = {"key": "a", "split": "train", "caption": "Ruiz.", "caption_entities": ruiz}
    return NewsSample(**given | {"paragraphs": ("Ruiz came. Rain.",), "sentences": sentences} | values)


def files(*folders: Path) -> set[Path]:
    return {path for folder in folders for path in folder.rglob("*")}


@pytest.fixture
def dry(root: Path, tmp_path: Path, own_cache: Path, monkeypatch: Any, capsys: Any) -> Callable[..., Report]:
    """``dry("run.max_iters=5", data={...}, model={...})``: projects/ealign/train.yaml with these changes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "1000")

    def run(*options: str, data: dict | None = None, model: dict | None = None) -> Report:
        config = yaml.safe_load((root / "projects" / "ealign" / "train.yaml").read_text())
        config["datasets"], config["model"] = data or config["datasets"], model or config["model"]
        config["run"]["shuffled_images"] = data is None
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
        before = files(tmp_path, own_cache)
        code = train.main(["--cfg-path", "run.yaml", "--dry-run", "--options", "run.device=cpu", *options])
        assert files(tmp_path, own_cache) == before
        assert not torch.cuda.is_initialized()
        said = capsys.readouterr()
        return Report(code, " ".join(said.out.split()), said.err)

    return run


@pytest.fixture
def shards(tmp_path: Path) -> Callable[..., dict]:
    """``shards("one", train=3, test=2)``: a folder with so many photos, one shard each; its section."""
    jpeg = io.BytesIO()
    Image.new("RGB", (8, 8)).save(jpeg, "JPEG")

    def write(folder: str, **counts: int) -> dict:
        rows = {}
        (tmp_path / folder).mkdir()
        for split, count in counts.items():
            pairs = [(news(key=f"{split}{number}", split=split), jpeg.getvalue()) for number in range(count)]
            rows[split] = write_split(pairs, tmp_path / folder, split, samples_per_shard=1)
        ner = {"name": DEFAULT_NER, "version": "1"}
        write_index(tmp_path / folder, rows, source="test", ner=ner, options={})
        sizes = {kind: {"name": "ealign_image", "image_size": 64} for kind in ("train", "eval")}
        return {
            "build_info": {"images": {"storage": folder}},
            "vis_processor": sizes,
            "splits": list(counts),
        }

    return write


@pytest.fixture(scope="module")
def published(tmp_path_factory: Any) -> Path:
    """A folder of transformers with a whole model of the size of type ``micro``."""
    folder = tmp_path_factory.mktemp("published") / "model"
    torch.manual_seed(0)
    export(load_model("ealign_instructblip", "micro"), folder, mean=MEAN, std=STD)
    return folder


@pytest.fixture
def weights(published: Path, tmp_path: Path) -> Path:
    """A copy of it, to be spoilt."""
    return Path(shutil.copytree(published, tmp_path / "weights"))


def pretrained(source: str | Path, **more: Any) -> dict:
    return {"arch": "ealign_instructblip", "model_type": "vicuna7b", "pretrained": str(source), **more}


def change(file: Path, edit: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    content = load_file(file)
    edit(content)
    save_file(content, file, metadata={"format": "pt"})


# The plan


def test_the_plan_of_the_embedded_world(dry, tmp_path, own_cache):
    report = dry()
    assert report.code == 0, report.error
    for part in (
        "ealign_instructblip, type micro random weights 2.3 M parameters, 2.3 M trained",
        f"ealign_micronews: {own_cache}/micronews-12-",
        "will be made (about a minute)",
        "photos: train 4,200, val 180, test 450; entities by en_core_web_sm",
        "3,200 steps × 32 examples (32 × 1 accumulated × 1 process) = 102,400",
        "13.1 epochs of 4,200 photos",
        "ealign_cosine: from 1.6e-05 up to 0.0015 in 96 steps, then down to 3e-05",
        "2 times: 180 photos of val × 1 context (refined)",
        "450 photos of test × 5 contexts (head, refined, supplemented, oracle, images shuffled)",
        "cpu; 1 process",
        "weights 8.7 MiB, gradients 8.7 MiB, optimiser 17.5 MiB",
        "Nothing was run; leave out --dry-run to start.",
    ):
        assert part in report.plan
    assert f"{tmp_path}/output/ealign_news_captioning/<date>_<time>" in report.plan


def test_the_plan_fits_a_narrow_terminal(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    print_plan("run.yaml", [("data", "ealign_news: " + "/a_long_path" * 12), ("test", "many words " * 20)])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


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


def test_an_evaluation_needs_no_training_split(dry, shards):
    report = dry("run.evaluate=true", "run.valid_splits=[]", data={"ealign_news": shards("one", test=2)})
    assert report.code == 0, report.error
    assert "2 photos of test × 4 contexts" in report.plan and "steps" not in report.plan


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
    assert "ealign_news: about 2,400 visits, 600.0 epochs of 4 photos" in report.plan
    assert "ealign_goodnews: about 800 visits, 400.0 epochs of 2 photos" in report.plan
    assert "1 photos of val" in report.plan and "3 photos of test" in report.plan


@pytest.mark.parametrize(
    "recipe",
    [
        {"tasks": {"caption": 1}},
        {"tasks": {"caption": 2, "sentence": 3, "entity": 2}},
        {"tasks": {"sentence": 5, "entity": 0.3}, "positives": 3},
    ],
)
def test_visits_are_those_of_the_stream(recipe):
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
    assert visits(mixer, 90) == pytest.approx(next(used), rel=0.01)


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
    assert any("'refind' is unknown" in line for line in others)
    assert any("'capton' is unknown" in line for line in others)
    assert any("model.pretrained: 'nowhere': no such folder" in line for line in others)


def test_an_index_that_is_broken(dry, shards, tmp_path):
    data = {"ealign_news": shards("one", train=2, val=1, test=1)}
    (tmp_path / "one" / "index.json").write_text("{")
    report = dry(data=data)
    assert report.code == 2 and "one/index.json: it cannot be read as JSON" in report.error


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


def test_a_runner_that_counts_epochs_does_not_read_an_endless_stream(dry, monkeypatch):
    monkeypatch.setattr(RunnerBase, "RUN_KEYS", {"clip_grad_norm": "of the other runner"}, raising=False)
    report = dry("run.runner=runner_base", "run.max_epoch=2")
    assert "run.runner: runner_base found, which counts epochs of data that end" in report.error


def test_a_rate_for_a_part_that_is_not_trained(dry):
    assert "run.lrs: 'lora' found, which is not trained" in dry("run.lrs={lora: 0.1}").error


# Weights


def test_a_folder_of_weights_that_fits(dry, weights):
    report = dry(model=pretrained(weights, trainable="lora"))
    assert report.code == 0, report.error
    assert "weights, which fit" in report.plan
    assert "vision 0.5 (frozen), connector 1.0 (trained), llm 0.8 (frozen), lora 0.1 (trained)" in report.plan


def test_weights_of_another_shape_and_a_broken_file(dry, weights):
    file = weights / "model.safetensors"
    change(file, lambda content: content.update(query_tokens=torch.zeros(1, 3, 128)))
    report = dry(model=pretrained(weights))
    assert report.code == 2
    assert (
        "1 of another shape; the first is query_tokens [1, 3, 128] where [1, 8, 128] is expected"
        in report.error
    )
    file.write_bytes(file.read_bytes()[:-9])
    assert "model.safetensors: it is no safetensors file" in dry(model=pretrained(weights)).error


def test_a_hub_that_gives_headers(dry, weights, monkeypatch):
    file = weights / "model.safetensors"
    meta = huggingface_hub.utils.SafetensorsFileMetadata
    tensors = {
        name: huggingface_hub.utils.TensorInfo("F32", list(value.shape), (0, 4 * value.numel()))
        for name, value in load_file(file).items()
    }
    one = meta(metadata={}, tensors=tensors)
    file.unlink()
    asked = []

    def headers(name, revision=None):
        asked.append((name, revision))
        return huggingface_hub.utils.SafetensorsRepoMetadata(None, False, {}, {"model.safetensors": one})

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(weights))
    monkeypatch.setattr(huggingface_hub, "get_safetensors_metadata", headers)
    report = dry(model=pretrained("owner/name@v1"))
    assert "weights of owner/name@v1, which fit; 8.7 MiB will be downloaded" in report.plan, report.error
    assert asked == [("owner/name", "v1")]
    del tensors["query_tokens"]
    assert "1 missing" in dry(model=pretrained("owner/name")).error


def test_a_hub_that_does_not_answer(dry, weights, monkeypatch):
    (weights / "model.safetensors").unlink()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(weights))
    report = dry(model=pretrained("owner/name"))
    assert report.code == 2 and "'owner/name': its weights are not here, and the hub does not" in report.error


def checkpoint(path: Path, leave_out: str = "none", **metadata: str) -> Path:
    state = load_model("ealign_instructblip", "micro").trainable_state()
    content = {name: value.clone() for name, value in state.items() if not name.startswith(leave_out)}
    save_file(content, path, metadata=metadata)
    return path


@pytest.mark.parametrize("key", ["run.resume_ckpt_path", "model.finetuned"])
def test_a_checkpoint_is_held_against_the_model(dry, key, tmp_path):
    more = ["model.load_finetuned=true"] if key == "model.finetuned" else []
    report = dry(f"{key}={checkpoint(tmp_path / 'whole.safetensors')}", *more)
    assert report.code == 0, report.error
    assert "random weights; then" in report.plan
    part = checkpoint(tmp_path / "part.safetensors", leave_out="qformer.embeddings.")
    report = dry(f"{key}={part}", *more)
    assert f"{key}: {part}: weights of another model or size (" in report.error and " more" not in report.plan
    assert "the first is qformer.embeddings." in report.error
    assert f"{key}: 'gone.safetensors': no such file" in dry(f"{key}=gone.safetensors", *more).error


def test_a_checkpoint_of_another_recipe(dry, tmp_path):
    path = checkpoint(tmp_path / "other.safetensors", arch="ealign_llava")
    report = dry(f"run.resume_ckpt_path={path}", "model.trainable=connector")
    assert report.code == 2


# Config


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("run.warmup_steps=5000", "run.warmup_steps: found 5000, expected at most run.max_iters, 3200"),
        ("run.min_lr=0.1", "run.min_lr: found 0.1, expected at most run.init_lr, 0.0015"),
        ("run.batch_size_train=0", "run.batch_size_train: found 0, expected at least 1"),
        ("run.accum_grad_iters=0", "run.accum_grad_iters: found 0, expected at least 1"),
        ("run.num_workers=-1", "run.num_workers: found -1, expected at least 0"),
        ("run.max_iters=0", "run.max_iters: found 0, expected at least 1"),
        ("run.init_lr=.nan", "run.init_lr: found nan, expected at least 0"),
        ("run.output_dir=run.yaml", "run.output_dir: run.yaml: run.yaml is a file, expected a folder"),
        ("run.output_dir=run.yaml/below", "run.output_dir: run.yaml/below: run.yaml is a file"),
        ("run.test_splits=[tset]", "run.test_splits: unknown split 'tset'; did you mean 'test'?"),
        ("run.valid_splits=[train]", "run.valid_splits: unknown split 'train'; expected one of test, val"),
        ("run.train_splits=[val]", "run.train_splits: unknown split 'val'; expected one of train"),
        ("datasets.ealign_micronews.splits=[train,val]", "run.test_splits: unknown split 'test'"),
    ],
)
def test_impossible_numbers_and_splits(dry, option, said):
    report = dry(option)
    assert report.code == 2 and said in report.error


def test_an_evaluation_of_nothing(dry):
    report = dry("run.evaluate=true", "run.test_splits=[]")
    assert "run.test_splits: found none beside run.evaluate: true" in report.error


def test_misspelt_keys_come_together(dry):
    report = dry("run.sead=1", "model.losss_reduction=token", "run.num_workers=-1")
    assert report.error.startswith("error: run.yaml: 3 problems\n")
