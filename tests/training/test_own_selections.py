"""A training that writes the model's own selections as it learns, and draws from them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from ealign_plugin.alignment.mixture import TaskMixture
from ealign_plugin.alignment.own_selections import read_selections
from ealign_plugin.alignment.selection import Selection
from ealign_plugin.data.streams.batches import TrainingBatches
from ealign_plugin.errors import UserError
from ealign_plugin.training.loaders import PREFETCHED, training_loader
from ealign_plugin.training.options import TrainingOptions
from ealign_plugin.training.own_selections import SelectionRefresh, selection_files
from tests.data.streams.resuming import Loader, batches_of, plain, training
from tests.factories import drawn_jpeg, news_sample, write_shards
from tests.registered.factories import Numbers

OWN = "It rained on"
"""Stands in the sentence that the model below selects, and that no label would."""
RECIPE = TaskMixture(tasks={"caption": 1}, extra=0, own_share=1.0)
OPTIONS = TrainingOptions(own_selections_from=3, own_selections_every=2, own_selections_photos=8)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """40 photos of 20 articles in 10 shards."""
    samples = [(news_sample(number, photo), drawn_jpeg(photo)) for number in range(20) for photo in (0, 1)]
    folder = tmp_path_factory.mktemp("shards")
    return write_shards(folder, {"train": samples}, samples_per_shard=4).shards["train"]


def select(name, photos):
    """The third sentence of each, by a model that takes no notice of the photo."""
    return [(sample, Selection((2,), ("Oslo",), (0.5,))) for samples, _ in photos for sample in samples]


class Run:
    """As much of a run as reads batches, refreshes selections and saves both."""

    def __init__(self, folder: Path, shards, workers: int, loader=Loader, options=OPTIONS) -> None:
        self.folder = folder
        self.batches: TrainingBatches = batches_of(
            shards, workers, loader=loader, size=4, batch_size=4, recipe=RECIPE, phases=()
        )
        folder.mkdir(exist_ok=True)
        files = selection_files(self.batches.loaders, options, folder)
        self.refresh = SelectionRefresh(self.batches, files, select, 3)

    def steps(self, count: int) -> list[tuple]:
        read = []
        for _ in range(count):
            read.append(plain(next(self.batches)))
            self.refresh.after_step()
        return read

    def save(self, checkpoint: Path) -> None:
        checkpoint.mkdir()
        for name, content in self.refresh.still_read().items():
            (checkpoint / name).write_bytes(content)
        (checkpoint / "state").write_text(self.batches.state())

    def resume(self, checkpoint: Path) -> None:
        self.batches.resume([(checkpoint / "state").read_text()])
        self.refresh.restore(checkpoint)


def own_in(batches: list[tuple]) -> list[int]:
    """How many contexts of each batch are made of the model's own selections."""
    return [sum(OWN in instruction for instruction in batch[2]) for batch in batches]


def test_contexts_are_made_of_the_models_own_selections_from_a_batch_on(shards, tmp_path):
    made = own_in(Run(tmp_path, shards, workers=0).steps(9))
    assert made[:3] == [0, 0, 0] and all(count == 4 for count in made[3:])
    assert [path.name for path in tmp_path.iterdir()] == ["selections-news-000009.jsonl"]


def test_it_selects_in_the_photos_that_are_read_next(shards, tmp_path):
    run = Run(tmp_path, shards, workers=0)
    run.steps(3)
    found = list(read_selections(tmp_path / "selections-news-000003.jsonl").found)
    later = [key for batch in run.steps(2) for key in batch[0]]
    assert later == found and len(set(found)) == 8


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_that_read_ahead_draw_what_workers_do_that_never_read_ahead(shards, tmp_path, workers):
    def loader(dataset, size, num_workers):
        return training_loader(dataset, batch_size=size, workers=num_workers)

    real = Run(tmp_path / "real", shards, workers, loader=loader).steps(14)
    slow = Run(tmp_path / "slow", shards, workers).steps(14)
    assert real == slow
    made, ahead = own_in(real), PREFETCHED * workers
    assert not any(made[: 3 + ahead]) and any(made[3 + ahead :])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [2, 3, 4, 6, 9])
def test_a_resumed_run_draws_what_an_undisturbed_one_draws(shards, tmp_path, workers, stop):
    whole = Run(tmp_path / "whole", shards, workers).steps(15)
    first = Run(tmp_path / "first", shards, workers)
    read = first.steps(stop)
    first.save(tmp_path / "checkpoint")
    first.steps(3)  # it is killed only later, and has written files that the resumed run writes again
    again = Run(tmp_path / "first", shards, workers)
    again.resume(tmp_path / "checkpoint")
    assert read + again.steps(15 - stop) == whole
    shutil.rmtree(tmp_path / "first")
    elsewhere = Run(tmp_path / "elsewhere", shards, workers)
    elsewhere.resume(tmp_path / "checkpoint")
    assert read + elsewhere.steps(15 - stop) == whole


def test_a_resumed_run_with_other_numbers_is_refused(shards, tmp_path):
    run = Run(tmp_path, shards, 0)
    run.steps(4)
    other = TrainingOptions(own_selections_from=3, own_selections_every=3, own_selections_photos=8)
    with pytest.raises(UserError, match="datasets.news.run.own_selections_every: 2 when .*, 3 now"):
        Run(tmp_path, shards, 0, options=other).batches.resume([run.batches.state()])


def test_an_epoch_is_selected_in_at_most(shards, tmp_path):
    options = TrainingOptions(own_selections_from=1, own_selections_photos=1000)
    Run(tmp_path, shards, 0, options=options).steps(1)
    head, *lines = (tmp_path / "selections-news-000001.jsonl").read_text().splitlines()
    assert json.loads(head)["photos"] == len(lines) == 40


def test_a_run_that_does_not_ask_for_it_writes_and_draws_nothing(shards, tmp_path):
    run = Run(tmp_path, shards, 0, options=TrainingOptions())
    assert not any(own_in(run.steps(6))) and not list(tmp_path.iterdir())
    assert run.refresh.still_read() == {}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Numbers(), "run.own_selections_from: set, but no training data set of this package"),
        (training((), batch_size=8), "datasets.news.batch_size: found 8 beside .*, expected .*, 4"),
    ],
)
def test_data_sets_that_cannot_draw_from_them_are_refused(tmp_path, data, message):
    with pytest.raises(UserError, match=message):
        selection_files({"news": DataLoader(data, 4)}, OPTIONS, tmp_path)
