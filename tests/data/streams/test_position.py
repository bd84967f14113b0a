"""A stream's place: after a restart it goes on as if nothing had happened, wherever it was stopped."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import pickle
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from ealign_plugin.data.shards.index import Shard
from ealign_plugin.data.shards.position import StreamPosition
from ealign_plugin.data.shards.read import OtherMembers
from ealign_plugin.data.streams import order
from ealign_plugin.data.streams import training as training_module
from ealign_plugin.data.streams.batches import StreamState
from ealign_plugin.data.streams.position import ConsumerState
from ealign_plugin.errors import UserError
from tests.data.streams.resuming import batches_of, delivered, plain, take, training


def test_a_state_of_an_older_version_is_read():
    state = ConsumerState.from_text("[[1,4,3,30,33,2],17,[0.5,1.0,0.25]]")
    assert state.position == StreamPosition(1, 4, 3, 30, 33, 2) and state.batch == 17
    assert state.carry_over == {"caption": 0.5, "sentence": 1.0, "entity": 0.25}
    assert state.to_text() == "[[1,4,3,30,33,2],17,[0.5,1.0,0.25]]"


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
    read_shard, decode = order.read_shard, training_module.decode_record

    def counted_read(shard: Shard, others: OtherMembers):
        opened.append(shard.path.name)
        return read_shard(shard, others)

    def counted_decode(raw):
        decoded.append(raw.key)
        return decode(raw)

    monkeypatch.setattr(order, "read_shard", counted_read)
    monkeypatch.setattr(training_module, "decode_record", counted_decode)
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
