"""After a restart the training stream goes on as if nothing had happened, wherever it was stopped."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import multiprocessing
import os
import pickle
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, default_collate

from ealign_plugin.alignment.mixture import TaskMixture
from ealign_plugin.alignment.prompts import Wording
from ealign_plugin.data.shards.index import Shard
from ealign_plugin.data.streams import order
from ealign_plugin.data.streams import training as training_module
from ealign_plugin.data.streams.batches import StreamState, TrainingBatches, check_weights
from ealign_plugin.data.streams.mixing import TaskMixer
from ealign_plugin.data.streams.training import TrainingStream, training_stream
from ealign_plugin.errors import UserError

MIX = TaskMixture(tasks={"caption": 1, "sentence": 2, "entity": 0.3})  # something is left to later batches
PHASES = [{"until": 5, "tasks": {"caption": 1}}]
TEXTS = ("key", "task", "instruction", "question", "target")


def to_tensor(image: Image.Image) -> torch.Tensor:
    """[3, 2, 2]"""
    return torch.from_numpy(np.array(image.resize((2, 2)))).permute(2, 0, 1).float()


def training(
    shards, *, recipe=MIX, seed=1, batch_size=8, phases=PHASES, context_words=20, **options
) -> TrainingStream:
    mixer = TaskMixer(recipe, Wording(), batch_size, seed=seed, phases=phases, context_words=context_words)
    return training_stream(shards, mixer, **{"image_processor": to_tensor, "window": 2, **options})


def plain(batch: dict) -> tuple:
    """A batch as something that can be compared."""
    return (*(tuple(batch[name]) for name in TEXTS), hashlib.sha256(batch["image"].numpy()).hexdigest())


def take(count: int, iterable) -> list:
    return list(itertools.islice(iterable, count))


@contextlib.contextmanager
def as_worker(number: int, of: int) -> Iterator[None]:
    worker = SimpleNamespace(id=number, num_workers=of) if of else None
    with patch.object(order, "get_worker_info", lambda: worker):
        yield


class Loader:
    """DataLoader's order, without its processes: the workers take turns, the first one begins."""

    def __init__(self, dataset, batch_size: int, num_workers: int) -> None:
        self.dataset, self.batch_size, self.num_workers = dataset, batch_size, num_workers

    def __iter__(self) -> Iterator[dict]:
        def read(worker: int) -> Iterator[dict]:
            with as_worker(worker, self.num_workers):
                examples = iter(self.dataset)
                first = next(examples)
            rest = itertools.chain([first], examples)
            while True:
                yield default_collate(take(self.batch_size, rest))

        readers = [read(worker) for worker in range(self.num_workers or 1)]
        return (next(reader) for reader in itertools.cycle(readers))


def batches_of(shards, workers: int, *, loader=Loader, size: int = 8, **options) -> TrainingBatches:
    return TrainingBatches({"news": loader(training(shards, **options), size, num_workers=workers)})


# ------------------------------------------------------------------------------------- going on exactly


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    shards=st.integers(1, 6),
    workers=st.integers(0, 3),
    window=st.integers(1, 7),
    ranks=st.sampled_from([(0, 1), (0, 2), (1, 2), (2, 3)]),
    stops=st.lists(st.integers(0, 30), min_size=1, max_size=3),
    size=st.sampled_from([8, 8, 8, 3, 16, 20]),
)
def test_a_resumed_stream_goes_on_as_the_undisturbed_one(index, shards, workers, window, ranks, stops, size):
    """Any place in any epoch, again and again; also where a loader's batch is not the mixer's."""
    rank, world_size = ranks
    options = {"window": window, "rank": rank, "world_size": world_size, "size": size}
    few = index.shards["train"][:shards]
    if sum(shard.samples for shard in few) < world_size * max(1, workers):
        return  # too few for so many readers
    whole = [plain(batch) for batch in take(sum(stops) + 12, batches_of(few, workers, **options))]
    read, saved = [], None
    for stop in [*stops, 12]:
        batches = batches_of(few, workers, **options)
        if saved:
            batches.resume([saved])
        read += [plain(batch) for batch in take(stop, batches)]
        saved = batches.state()
    assert read == whole


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
@pytest.mark.parametrize("stop", [1, 4, 17])
def test_workers_go_on_too(index, workers, stop):
    """With PyTorch's own processes, which had already read ahead."""
    shards = index.shards["train"]
    whole = [plain(batch) for batch in take(stop + 9, batches_of(shards, workers, loader=DataLoader))]
    first = batches_of(shards, workers, loader=DataLoader)
    read = [plain(batch) for batch in take(stop, first)]
    second = batches_of(shards, workers, loader=DataLoader)
    second.resume([first.state()])
    assert read + [plain(batch) for batch in take(9, second)] == whole


def test_the_main_process_may_take_over_from_one_worker(index):
    shards = index.shards["train"]
    whole = [plain(batch) for batch in take(15, batches_of(shards, 1))]
    first = batches_of(shards, 1)
    take(7, first)
    second = batches_of(shards, 0)
    second.resume([first.state()])
    assert [plain(batch) for batch in take(8, second)] == whole[7:]


def test_the_state_survives_a_checkpoint_and_a_fresh_process(index, tmp_path):
    batches = batches_of(index.shards["train"], 2)
    take(11, batches)
    torch.save({"streams": [batches.state()]}, tmp_path / "state.pt")
    (saved,) = torch.load(tmp_path / "state.pt", weights_only=True)["streams"]
    again = batches_of(index.shards["train"], 2)
    again.resume([saved])
    assert [plain(batch) for batch in take(5, again)] == [plain(batch) for batch in take(5, batches)]


def test_a_stream_that_goes_on_can_be_sent_to_a_spawned_worker(index):
    shards = index.shards["train"]
    batches = batches_of(shards, 0)
    take(7, batches)
    data = training(shards)
    StreamState.from_json(json.loads(batches.state())["sources"]["news"], 1).resume(data)
    sent = pickle.loads(pickle.dumps(data))
    assert [example["key"] for example in take(30, sent)] == [example["key"] for example in take(30, data)]


def test_skipped_samples_are_still_counted_after_a_restart(tar_of, news, photo):
    content = []
    for number in range(60):
        jpeg = b"broken" if number % 3 == 0 else photo(0)
        record = json.dumps(news(number).to_json()).encode()
        content += [(f"train{number:03d}_0.jpg", jpeg), (f"train{number:03d}_0.json", record)]
    shard = tar_of(content)

    def read(stop: int | None) -> tuple[int, str]:
        """Batches until the stream gives up, and what it says; with a restart in between."""
        read = 0
        batches = batches_of([shard], 0, max_skipped=0.1)
        try:
            for read in itertools.count(1):
                next(batches)
                if read == stop:
                    saved, batches = batches.state(), batches_of([shard], 0, max_skipped=0.1)
                    batches.resume([saved])
        except UserError as error:
            return read, str(error)

    (whole, message), (resumed, later) = read(None), read(3)
    assert resumed == whole > 3
    assert message.partition(" were bad")[0] == later.partition(" were bad")[0]
    assert "× before the training was resumed" in later


# --------------------------------------------------------------------------------- cheap, and how cheap


def test_only_the_window_is_read_again_and_nothing_is_decoded_before_the_first_new_sample(index, monkeypatch):
    opened, decoded = [], []
    read_shard, decode = order.read_shard, training_module.decode

    def counted_read(shard: Shard):
        opened.append(shard.path.name)
        return read_shard(shard)

    def counted_decode(raw, processor):
        decoded.append(raw.key)
        return decode(raw, processor)

    monkeypatch.setattr(order, "read_shard", counted_read)
    monkeypatch.setattr(training_module, "decode", counted_decode)
    for stop in range(1, 40):
        whole = batches_of(index.shards["train"], 0)
        opened.clear()
        take(stop, whole)
        last_window = opened[-2:]
        opened.clear(), decoded.clear()
        resumed = batches_of(index.shards["train"], 0)
        resumed.resume([whole.state()])
        assert not opened and not decoded  # not before the first batch is asked for
        (batch,) = take(1, resumed)
        assert opened[:2] == last_window
        assert decoded[0] == batch["key"][0] and set(decoded) == set(batch["key"])


def test_the_state_is_small_wherever_the_stream_stands(index):
    """Under 200 bytes for each worker, without what only names the data and the recipe."""
    batches = batches_of(index.shards["train"], 3)
    sizes = []
    for _ in range(300):
        next(batches)
        (source,) = json.loads(batches.state())["sources"].values()
        sizes.append(max(len(json.dumps(told)) for told in source["consumers"].values()))
    assert max(sizes) < 200
    assert len(batches.state()) < 3000


def test_the_states_are_taken_out_of_the_batch(index):
    (batch,) = take(1, batches_of(index.shards["train"], 0))
    assert sorted(batch) == ["image", "instruction", "key", "question", "target", "task"]
    (raw,) = take(1, Loader(training(index.shards["train"]), 8, 0))
    assert raw["stream_state"][:7] == 7 * [""] and raw["stream_state"][7]


# ------------------------------------------------------------------------------------ what must not change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 16}, "run.batch_size_train: 8 when the checkpoint was saved, 16 now"),
        ({"seed": 2}, "datasets.news.seed: 1 when the checkpoint was saved, 2 now"),
        ({"batch_size": 4}, "datasets.news.batch_size: 8 when .*, 4 now"),
        ({"window": 3}, "datasets.news.shuffle_shards: 2 when .*, 3 now"),
        ({"phases": ()}, r"datasets.news.phases: \[\{.*\}\] when .*, \[\] now"),
        ({"context_words": 21}, "run.context_words: 20 when .*, 21 now"),
        (
            {"recipe": MIX.changed({"tasks": {"sentence": 2, "caption": 1, "entity": 0.3}})},
            "datasets.news.recipe.tasks: caption, sentence, entity when .*, sentence, caption, entity now",
        ),
    ],
)
def test_a_stream_that_is_read_in_another_way_is_refused_by_the_key(index, change, message):
    first = batches_of(index.shards["train"], 2)
    take(3, first)
    second = batches_of(index.shards["train"], **{"workers": 2, **change})
    with pytest.raises(UserError, match=message) as error:
        second.resume([first.state()])
    assert "set it back, or start anew from the weights" in str(error.value)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    before=st.tuples(st.integers(1, 3), st.integers(0, 2)),
    after=st.tuples(st.integers(1, 3), st.integers(0, 2)),
    read=st.integers(0, 12),
)
def test_with_other_processes_or_workers_all_go_on_with_the_next_epoch(index, before, after, read):
    shards = index.shards["train"]

    def each(processes, workers):
        return [
            TrainingBatches(
                {"news": Loader(training(shards, rank=rank, world_size=processes), 8, workers)},
                world_size=processes,
            )
            for rank in range(processes)
        ]

    first = each(*before)
    for batches in first:
        take(read, batches)
    saved = [batches.state() for batches in first]
    second = each(*after)
    for rank, batches in enumerate(second):
        batches.resume(saved, rank)
    if (before[0], before[1] or 1) == (after[0], after[1] or 1):
        expected = [plain(next(batches)) for batches in first]
        assert [plain(next(batches)) for batches in second] == expected
        return
    for batches in second:
        take(max(1, after[1]), batches)
    epochs = [
        [json.loads(text)[0][0] for text, _ in json.loads(b.state())["sources"]["news"]["consumers"].values()]
        for b in second
    ]
    told = [
        json.loads(text)[0][0]
        for state in saved
        for text, _ in json.loads(state)["sources"]["news"]["consumers"].values()
        if text
    ]
    assert min(map(min, epochs)) >= max(told, default=-1) + 1
    delivered = json.loads(second[0].state())["sources"]["news"]["delivered"]
    assert delivered == read + max(1, after[1])


def test_other_shards_and_other_data_sets_are_refused(index):
    shards = index.shards["train"]
    saved = batches_of(shards, 2).state()
    with pytest.raises(UserError, match="datasets.news.shards: 24 samples in 6 shards, .*, 20 samples in 5"):
        batches_of(shards[:5], 2).resume([saved])
    with pytest.raises(UserError, match="datasets: news when the checkpoint was saved, others now"):
        TrainingBatches({"others": Loader(training(shards), 8, 2)}).resume([saved])


def test_shards_may_move_to_another_folder(index, tmp_path):
    shards = index.shards["train"]
    moved = [Shard(tmp_path / shard.path.name, shard.samples) for shard in shards]
    for old, new in zip(shards, moved, strict=True):
        new.path.write_bytes(old.path.read_bytes())
    first = batches_of(shards, 0)
    take(3, first)
    second = batches_of(moved, 0)
    second.resume([first.state()])
    assert plain(next(second)) == plain(next(first))


# ------------------------------------------------------------------------------------- several data sets


class Letters(IterableDataset):
    """A foreign data set: endless, and it cannot tell its place."""

    def __iter__(self) -> Iterator[dict]:
        return ({"key": f"letter{number}"} for number in itertools.count())


def mixed(index, seed: int = 4, weights=None, workers: int = 0) -> TrainingBatches:
    sets = {"one": training(index.shards["train"]), "two": training(index.shards["test"]), "far": Letters()}
    loaders = {name: Loader(part, 8, workers if name != "far" else 0) for name, part in sets.items()}
    return TrainingBatches(loaders, weights=weights, seed=seed)


def source_of(batch: dict) -> str:
    names = {key[:5] for key in batch["key"]}
    assert len(names) == 1  # every batch is of one data set
    return {"train": "one", "test0": "two", "lette": "far"}[names.pop()]


def test_data_sets_are_drawn_by_weight(index):
    counts = Counter(map(source_of, take(400, mixed(index, weights={"one": 3, "two": 1, "far": 0}))))
    assert counts["one"] / 400 == pytest.approx(0.75, abs=0.05) and set(counts) == {"one", "two"}
    counts = Counter(map(source_of, take(300, mixed(index))))
    assert min(counts.values()) > 80  # without weights all alike


def test_the_draw_depends_on_seed_and_batch_alone(index):
    def drawn(**options) -> list[str]:
        return [source_of(batch) for batch in take(40, mixed(index, **options))]

    assert drawn() == drawn() == drawn(workers=2)
    assert drawn() != drawn(seed=5)


@pytest.mark.parametrize("stop", [1, 5, 23])
def test_all_data_sets_go_on_where_they_stood(index, stop):
    def texts(batches) -> list:
        return [tuple(batch["key"]) for batch in take(20, batches)]

    whole = mixed(index, weights={"one": 2, "two": 1, "far": 1}, workers=2)
    take(stop, whole)
    resumed = mixed(index, weights={"one": 2, "two": 1, "far": 1}, workers=2)
    resumed.resume([whole.state()])
    assert texts(resumed) == texts(whole)


def test_other_weights_are_refused_at_a_restart(index):
    saved = mixed(index, weights={"one": 2, "two": 1, "far": 1}).state()
    with pytest.raises(UserError, match=r"run.train_dataset_ratios.one: 2.0 when .*, 1.0 now"):
        mixed(index).resume([saved])
    with pytest.raises(UserError, match=r"run.seed: 4 when .*, 5 now"):
        mixed(index, weights={"one": 2, "two": 1, "far": 1}, seed=5).resume([saved])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"a": 1, "b": 1, "c": 1}, "'c' has no training split; expected a number for each of a, b"),
        ({"a": 1}, "ratios.b: a number of 0 or more was expected, found None"),
        ({"a": 1, "b": -1}, "ratios.b: a number of 0 or more was expected, found -1"),
        ({"a": 1, "b": "2"}, "found '2'"),
        ({"a": 1, "b": float("nan")}, "found nan"),
        ({"a": 1, "b": True}, "found True"),
        ({"a": 0, "b": 0}, "a number above 0 was expected"),
    ],
)
def test_weights_that_fit_no_data_sets_are_refused(weights, message):
    with pytest.raises(UserError, match=message):
        check_weights({"a": None, "b": None}, weights)


# --------------------------------------------------------------------------------------------------- kill -9


def train_until_killed(shards, folder: Path, every: int) -> None:
    """A training of its own: writes down each batch, and now and then a checkpoint; goes on from the last."""
    batches = batches_of(shards, 2, loader=DataLoader)
    checkpoint = folder / "checkpoint.json"
    if checkpoint.exists():
        batches.resume([checkpoint.read_text()])
    with open(folder / f"{os.getpid()}.txt", "a") as log:
        for number in itertools.count(1):
            log.write(json.dumps(plain(next(batches))) + "\n")
            log.flush()
            if number % every == 0:
                (folder / "new.json").write_text(batches.state())
                os.replace(folder / "new.json", checkpoint)


def delivered(checkpoint: Path) -> int:
    return json.loads(checkpoint.read_text())["sources"]["news"]["delivered"] if checkpoint.exists() else 0


def test_ten_kills_change_nothing(index, tmp_path):
    """SIGKILL at random points; after each, what was read after the last checkpoint is read again."""
    shards, chance = index.shards["train"], random.Random(0)
    forks, checkpoint = multiprocessing.get_context("fork"), tmp_path / "checkpoint.json"
    read: list[tuple] = []
    for _ in range(10):
        process = forks.Process(target=train_until_killed, args=(shards, tmp_path, chance.randint(1, 4)))
        start = delivered(checkpoint)
        process.start()
        log = tmp_path / f"{process.pid}.txt"
        wait_for_lines(log, chance.randint(1, 25), process)
        time.sleep(chance.random() / 100)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        lines = [line for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
        again = [tuple(map(to_tuple, json.loads(line))) for line in lines]
        repeated = read[start:]
        assert again[: len(repeated)] == repeated[: len(again)]
        read[start:] = again
    assert delivered(checkpoint) > 20
    whole = [plain(batch) for batch in take(len(read), batches_of(shards, 2))]
    assert read == whole


def to_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def wait_for_lines(log: Path, count: int, process: multiprocessing.Process, seconds: float = 30) -> None:
    end = time.time() + seconds
    while not log.exists() or log.read_text().count("\n") < count:
        assert process.is_alive() and time.time() < end
        time.sleep(0.002)
