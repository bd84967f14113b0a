"""Problems of a config are reported together."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("run.warmup_steps=5000", "run.warmup_steps: found 5000, expected at most run.max_iters, 3200"),
        ("run.min_lr=0.1", "run.min_lr: found 0.1, expected at most run.init_lr, 0.0015"),
        ("run.batch_size_train=0", "run.batch_size_train: found 0, expected from 1 to 1000000"),
        ("run.accum_grad_iters=0", "run.accum_grad_iters: found 0, expected at least 1"),
        ("run.num_workers=-1", "run.num_workers: found -1, expected from 0 to 1000"),
        ("run.max_iters=0", "run.max_iters: found 0, expected at least 1"),
        ("run.init_lr=.nan", "run.init_lr: found nan, expected a number of at least 0"),
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
