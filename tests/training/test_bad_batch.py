"""A loss that is not finite."""

from __future__ import annotations

import json
import math

from ealign_plugin.training.bad_batch import report_bad_batches


def test_the_samples_of_bad_batches_are_written_down_and_named(tmp_path):
    batches = [{"key": ["c", "a", "a"]}, {"key": ["fine"]}, {}]
    losses = [{"loss": math.inf}, {"loss": 1.0}, {"loss": math.nan}]
    error = report_bad_batches(tmp_path, 7, batches, losses)
    assert str(error) == (
        "iteration 7: the loss is inf; lower run.init_lr or look at the samples a, c (all of the batch are "
        f"in {tmp_path / 'bad_batch.json'})"
    )
    assert json.loads((tmp_path / "bad_batch.json").read_text()) == {
        "iteration": 7,
        "batches": [
            {"rank": 0, "loss": "inf", "keys": ["a", "c"]},
            {"rank": 0, "loss": "nan", "keys": []},
        ],
    }
