"""What stands behind the progress bar."""

from __future__ import annotations

import re

import torch

from ealign_plugin.training.progress import progress_bar, progress_line

CPU = torch.device("cpu")


def test_losses_speed_waiting_and_memory():
    means = {"loss": 2.5, "loss_entity": 1.25, "tokens": 90.0}
    line = progress_line(means, tokens_per_second=912.4, waiting=0.104, device=CPU)
    assert re.fullmatch(r"loss 2\.500, entity 1\.250, 912 tokens/s, data wait 10%, \d+\.\d GiB", line)


def test_a_model_that_counts_no_tokens_has_no_speed():
    assert "tokens/s" not in progress_line({"loss": 1.0}, tokens_per_second=0, waiting=0, device=CPU)


def test_the_bar_begins_where_a_resumed_run_does(capsys):
    with progress_bar(10, done=4) as bar:
        bar.update()
        assert (bar.n, bar.total) == (5, 10)
    assert "Training" in capsys.readouterr().err
