"""Runs that train on the model's own selections, killed and resumed."""

from __future__ import annotations

import logging

import pytest
import torch
from safetensors.torch import load_file

from ealign_plugin.alignment.mixture import TaskMixture
from ealign_plugin.alignment.selection import Selection
from ealign_plugin.errors import UserError
from tests.data.streams.factories import training
from tests.factories import drawn_jpeg, news_sample, write_shards
from tests.registered.factories import Few, Task, Weight, interrupt_step

RECIPE = TaskMixture(tasks={"caption": 1}, own_share=1.0)
OPTIONS = {
    "own_selections_from": 2,
    "own_selections_every": 2,
    "own_selections_photos": 6,
    "max_iters": 8,
    "iters_per_inner_epoch": 4,
    "save_freq": 1,
    "resume": "auto",
}


class Reader(Weight):
    """Its loss is a function of the contexts that it reads, so what it learns is too."""

    def forward(self, samples):
        x = torch.tensor([[sum(map(ord, text)) % 97 / 97] for text in samples["instruction"]])
        return {"loss": ((self.w[0] * x - 3 * x) ** 2).mean()}


class Selecting(Task):
    """Selects by what the weight is, in evaluation mode."""

    def select(self, model, wording, batches):
        assert not model.training
        index = int(1000 * float(model.w.detach())) % 3
        return [(one, Selection((index,), scores=(0.5,))) for samples, _ in batches for one in samples]


@pytest.fixture
def datasets(tmp_path):
    """``datasets()``: 24 photos as a stream, and something to validate."""
    samples = [(news_sample(number, photo), drawn_jpeg(photo)) for number in range(12) for photo in (0, 1)]
    shards = write_shards(tmp_path / "shards", {"train": samples}, samples_per_shard=4).shards["train"]

    def build():
        stream = training(shards, recipe=RECIPE, batch_size=4)
        return {"news": {"train": stream, "val": Few(), "test": Few()}}

    return build


def test_the_file_that_is_read_lies_in_the_run_and_in_its_checkpoints(make, datasets, caplog):
    runner = make(Selecting([0.1, 0.2]), Reader(), datasets(), **OPTIONS)
    with caplog.at_level(logging.INFO):
        runner.train()
    for folder in (runner.folder, runner.folder / "checkpoints" / "last"):
        assert [path.name for path in folder.glob("selections-*")] == ["selections-news-000008.jsonl"]
    assert "After step 4 the model selected 1.0 sentences in each of 6 photos" in caplog.text


@pytest.mark.parametrize("kill_after", [2, 3, 5, 6])
def test_killed_after_any_step_a_run_ends_in_the_same_weights(make, datasets, kill_after):
    whole = make(Selecting([0.1, 0.2]), Reader(), datasets(), **OPTIONS)
    whole.train()
    plain = make(Task([0.1, 0.2]), Reader(), datasets(), **OPTIONS | {"own_selections_from": None})
    plain.train()
    first = make(task := Selecting([0.1, 0.2]), Reader(), datasets(), **OPTIONS)
    interrupt_step(first, kill_after)
    with pytest.raises(KeyboardInterrupt):
        first.train()
    rest = make(task, Reader(), datasets(), name=first.folder.name, **OPTIONS)
    rest.train()
    assert rest.start_iters == kill_after - 1
    one, two, other = (
        load_file(run.folder / "checkpoints" / "last" / "weights.safetensors")["w"]
        for run in (whole, rest, plain)
    )
    assert torch.equal(one, two) and not torch.equal(one, other)


def test_a_task_that_selects_nothing_is_refused(make, datasets):
    with pytest.raises(
        UserError, match="^run.own_selections_from: set, but the task selects nothing; set it"
    ):
        make(Task([0.1]), Reader(), datasets(), **OPTIONS).train()
