"""The task as LAVIS uses it: its options, and the steps that it hands to the evaluator."""

from __future__ import annotations

import pytest
import torch
from lavis.common.registry import registry
from omegaconf import OmegaConf

from ealign_plugin.errors import UserError
from ealign_plugin.inference.options import EvaluationOptions, InferenceOptions
from ealign_plugin.registered.task import NewsCaptioning
from tests.inference.factories import Oracle, Split, sample


def test_every_option_has_a_default_and_a_help():
    assert NewsCaptioning.RUN_DEFAULTS.keys() == NewsCaptioning.RUN_KEYS.keys()
    assert all(NewsCaptioning.RUN_KEYS.values())
    assert NewsCaptioning.RUN_DEFAULTS["contexts"] == list(EvaluationOptions().contexts)
    assert NewsCaptioning.RUN_DEFAULTS["context_words"] == InferenceOptions().context_words == 500


def test_a_config_of_lavis_makes_it(tmp_path):
    cfg = OmegaConf.create({"run_cfg": {"contexts": ["head"], "num_beams": 2, "output_dir": "somewhere"}})
    task = NewsCaptioning.setup_task(cfg)
    assert (task.evaluator.plan.contexts, task.evaluator.options.num_beams) == (("head",), 2)
    with pytest.raises(UserError, match="unknown context strategy 'haed'"):
        NewsCaptioning({"contexts": ["haed"]})


def test_a_training_step_gives_the_loss_and_keeps_the_others():
    task = NewsCaptioning()
    output = {"loss": torch.tensor(2.0), "loss_caption": torch.tensor(1.5), "tokens": torch.tensor(9)}
    assert task.train_step(lambda samples: output, {}) == 2.0
    assert task.losses == {"loss_caption": 1.5, "tokens": 9}


def test_a_test_writes_into_the_folder_of_the_run(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")  # METEOR takes seconds
    monkeypatch.setitem(registry.mapping["paths"], "output_dir", str(tmp_path))
    task, model, split = NewsCaptioning({"contexts": ["refined"]}), Oracle(), Split(sample())
    task.before_evaluation(model=model, dataset=split)
    records = task.evaluation(model, split.batches())
    log = task.after_evaluation(val_result=records, split_name="test", epoch=0)
    assert log["agg_metrics"] == task.report["contexts"]["refined"]["cider"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["predictions.jsonl", "report.txt"]


def test_a_validation_of_the_split_that_is_tested_is_no_test(tmp_path, monkeypatch):
    monkeypatch.setitem(registry.mapping["paths"], "output_dir", str(tmp_path))
    task = NewsCaptioning({"contexts": ["refined"], "valid_contexts": ["head"], "threshold": "auto"})
    model, split = Oracle(), Split(sample())
    task.before_evaluation(model=model, dataset=split, validates=True)
    log = task.after_evaluation(task.evaluation(model, split.batches()), split_name="test", epoch=0)
    assert "head/cider" in log and "refined/cider" not in log
    assert (task.report, list(tmp_path.iterdir())) == ({}, [])
