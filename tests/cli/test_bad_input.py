"""What a user can get wrong with data, model and options: one line, exit code 2, nothing left behind."""

from __future__ import annotations

import json

import pytest
import yaml

from ealign_plugin.cli import train


@pytest.fixture
def refused(root, tmp_path, monkeypatch, capsys):
    """``refused({"datasets.ealign_micronews.seed": "x"}, ...)`` -> the one line on stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*options: str, data: dict | None = None) -> str:
        config = yaml.safe_load((root / "projects" / "ealign" / "train_closed.yaml").read_text())
        if data is not None:
            config["datasets"] = data
            config["run"]["shuffled_images"] = False
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
        assert train.main(["--cfg-path", "run.yaml", *(["--options", *options] if options else [])]) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1
        assert not list(tmp_path.rglob("checkpoint*")) and not list(tmp_path.rglob("log.txt"))
        return lines[0]

    return run


def test_a_ner_model_that_is_not_installed(refused):
    line = refused("datasets.ealign_micronews.world.ner=en_core_web_huge")
    assert "no NER model" in line and "'en_core_web_huge'" in line and "pip install" in line


def test_a_folder_of_shards_that_does_not_exist(refused):
    line = refused(data={"ealign_news": {"build_info": {"images": {"storage": "nowhere"}}}})
    assert "nowhere: no such folder of shards" in line


def test_no_folder_of_shards_at_all(refused):
    line = refused(data={"ealign_news": {}})
    assert "build_info.images.storage" in line and "index.json" in line


def test_shards_of_another_schema_version(refused, tmp_path):
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "index.json").write_text(json.dumps({"schema": 99, "splits": {}}))
    line = refused(data={"ealign_news": {"build_info": {"images": {"storage": "shards"}}}})
    assert "schema version 99 found, 1 expected" in line and "make the shards again" in line


def test_micronews_does_not_write_over_a_foreign_folder(refused, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    line = refused("datasets.ealign_micronews.build_info.images.storage=mine")
    assert "mine exists and is no finished MicroNews" in line and "choose another" in line
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("model.model_type=vicuna70b", "unknown type 'vicuna70b'"),
        ("model.losss_reduction=token", "did you mean 'loss_reduction'?"),
        ("run.contexts=[refind]", "unknown context strategy 'refind'"),
        ("run.protocol=bleurt", "bleurt"),
        ("datasets.ealign_micronews.recipe.positvies=10", "did you mean 'positives'?"),
        ("datasets.ealign_micronews.recipe.words=10", "run.context_words"),
        ("datasets.ealign_micronews.recipe.tasks={capton: 1}", "capton"),
        ("datasets.ealign_micronews.world.articles.train=many", "found 'many', expected a whole number"),
        ("run.output_dir=run.yaml/below", "run.output_dir: run.yaml/below"),
        ("run.max_iters=soon", "found 'soon', expected a whole number"),
        ("run.learning_rate=1", "unknown key 'learning_rate'; it is called init_lr here"),
        ("run.gradient_accumulation_steps=2", "it is called accum_grad_iters here"),
        ("run.seed=-5", "run.seed: found -5, expected from 0 to 4294967295"),
        ("run.seed=null", "run.seed: found null, expected a whole number"),
        ("run.test_splits=null", "run.test_splits: found null, expected a list; for none write []"),
        ("run.max_epoch=3", "run.max_epoch: found 3, which ealign_runner does not read; set run.max_iters"),
        ("model.finetuned=best.safetensors", "model.load_finetuned: false, which leaves it unread"),
        ("datasets.ealign_micronews.limit={train: 10}", "unknown split 'train'; expected one of test, "),
        ("datasets.ealign_micronews.limit={tset: 10}", "limit: unknown split 'tset'; did you mean 'test'?"),
        ("datasets.ealign_micronews.limit={val: 0}", "limit.val: found 0, expected at least 1"),
        ("datasets.ealign_micronews.limit={val: many}", "limit.val: found 'many', expected a whole number"),
        ("datasets.ealign_micronews.shuffle_shards=0", "shuffle_shards: found 0, expected at least 1"),
        ("datasets.ealign_micronews.max_skipped=2", "max_skipped: found 2, expected from 0 to 1"),
        ("datasets.ealign_micronews.batch_size=auto", "batch_size: found 'auto', expected a whole number"),
    ],
)
def test_misspelt_and_mistaken_options(refused, option, said):
    assert said in refused(option)


def test_all_mistakes_come_in_one_message(root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = str(root / "projects" / "ealign" / "train.yaml")
    assert train.main(["--cfg-path", config, "--options", "run.sead=1", "model.model_type=huge"]) == 2
    error = capsys.readouterr().err
    assert "'sead'" in error and "'huge'" in error
