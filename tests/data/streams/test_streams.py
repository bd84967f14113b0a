"""The stream: an endless, reproducible mix for training; each sample once for evaluation; nothing trusted."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import logging
import os
import pickle
import random
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile
from torch.utils.data import DataLoader

from ealign_plugin.alignment.mixture import TaskMixture
from ealign_plugin.alignment.prompts import Wording
from ealign_plugin.alignment.tasks import BUILT_IN_TASKS as TASKS
from ealign_plugin.alignment.tasks import AlignmentTask, register_task
from ealign_plugin.data.shards.index import Shard
from ealign_plugin.data.shards.position import StreamPosition
from ealign_plugin.data.shards.read import OtherMembers, RawSample, decode, read_shard
from ealign_plugin.data.streams import order
from ealign_plugin.data.streams.evaluation import EvaluationSamples
from ealign_plugin.data.streams.mixing import TaskMixer, task_quota
from ealign_plugin.data.streams.order import ShuffledSamples
from ealign_plugin.data.streams.position import ConsumerState
from ealign_plugin.data.streams.training import Decoder, training_stream
from ealign_plugin.errors import UserError
from ealign_plugin.images import open_image

MIX = TaskMixture(tasks={"caption": 1, "sentence": 2, "entity": 1})


def to_tensor(image: Image.Image) -> torch.Tensor:
    """[3, 8, 8], as an image processor gives it."""
    return torch.from_numpy(np.array(image.resize((8, 8)))).permute(2, 0, 1).float()


def training(shards, **changes):
    values = {"recipe": MIX, "wording": Wording(), "batch_size": 8, "seed": 1, "context_words": 20, **changes}
    of_mixer = {field.name for field in dataclasses.fields(TaskMixer)}
    mixer = TaskMixer(**{name: value for name, value in values.items() if name in of_mixer})
    rest = {name: value for name, value in values.items() if name not in of_mixer}
    return training_stream(shards, mixer, **{"image_processor": to_tensor, **rest})


def take(count: int, iterable) -> list:
    return list(itertools.islice(iterable, count))


def text_of(items) -> list[tuple[str, ...]]:
    return [(item["key"], item["task"], item["instruction"], item["target"]) for item in items]


def batches_of(items: list, size: int) -> list[list]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def epochs(shards, count: int, **options) -> list[list[str]]:
    """Keys that one consumer reads, epoch by epoch."""
    read: list[list[str]] = []
    for raw in ShuffledSamples(shards, **options):
        if raw.position.epoch == count:
            return read
        if raw.position.epoch == len(read):
            read.append([])
        read[raw.position.epoch].append(raw.key)


def be_worker(monkeypatch, number: int, of: int) -> None:
    """From here on this process is one of DataLoader's workers."""
    worker = SimpleNamespace(id=number, num_workers=of)
    monkeypatch.setattr(order, "get_worker_info", lambda: worker)


# ------------------------------------------------------------------------------------ order of the samples


def test_every_epoch_reads_every_sample_once_in_another_order(index):
    first, second, third = epochs(index.shards["train"], 3, seed=1)
    assert len(first) == 24 and set(first) == set(second) == set(third)
    assert len({tuple(first), tuple(second), tuple(third)}) == 3
    assert all(len(set(keys)) == len(keys) for keys in (first, second, third))


def test_the_order_is_a_pure_function_of_the_seed(index):
    random.seed(1)
    once = epochs(index.shards["train"], 2, seed=5)
    random.seed(2)
    assert epochs(index.shards["train"], 2, seed=5) == once
    assert epochs(index.shards["train"], 2, seed=6) != once


def test_the_global_random_state_is_left_alone(index):
    state = random.getstate(), torch.get_rng_state().tolist()
    take(50, training(index.shards["train"]))
    assert (random.getstate(), torch.get_rng_state().tolist()) == state


def test_a_window_of_shards_is_shuffled_together(index):
    shard_of = {raw.key: s.path.name for s in index.shards["train"] for raw in read_shard(s)}

    def shards_in_turn(window: int) -> int:
        (keys,) = epochs(index.shards["train"], 1, seed=3, window=window)
        return len(list(itertools.groupby(shard_of[key] for key in keys)))

    assert shards_in_turn(window=1) == 6  # one after the other
    assert shards_in_turn(window=6) > 12


@pytest.mark.parametrize(("ranks", "workers"), [(1, 1), (1, 2), (2, 1), (2, 3), (1, 4), (4, 2), (1, 9)])
@pytest.mark.parametrize("window", [1, 4])
def test_consumers_are_disjoint_and_together_complete(index, monkeypatch, ranks, workers, window):
    """6 shards: up to 6 consumers have shards of their own, more take turns."""
    read = []
    for rank, worker in itertools.product(range(ranks), range(workers)):
        be_worker(monkeypatch, worker, workers)
        (keys,) = epochs(index.shards["train"], 1, seed=2, window=window, rank=rank, world_size=ranks)
        assert keys
        read += keys
    assert len(read) == 24 and len(set(read)) == 24


def test_no_consumer_starves_where_a_window_holds_fewer_samples_than_there_are_consumers(
    shards_of, tmp_path, monkeypatch
):
    few = shards_of(tmp_path, {"train": 3}, samples_per_shard=2).shards["train"]
    for worker in range(5):
        be_worker(monkeypatch, worker, 5)
        assert take(3, ShuffledSamples(few, seed=1, window=1))


def test_too_few_samples_are_an_error_and_no_endless_wait(shards_of, tmp_path, monkeypatch):
    be_worker(monkeypatch, 3, 4)
    shards = shards_of(tmp_path, {"train": 1}).shards["train"]
    with pytest.raises(UserError, match="2 samples in 1 shards are too few for 4 readers"):
        take(1, ShuffledSamples(shards, seed=1))
    with pytest.raises(UserError, match="0 samples in 0 shards are too few"):
        take(1, ShuffledSamples((), seed=1))


# -------------------------------------------------------------------------------------------- mix of tasks


def test_every_batch_holds_the_mix(index):
    for batch in batches_of(take(40 * 8, training(index.shards["train"])), 8):
        assert Counter(item["task"] for item in batch) == {"caption": 2, "sentence": 4, "entity": 2}
        answers = Counter(item["target"] for item in batch if item["task"] == "sentence")
        assert answers == {"yes": 2, "no": 2}


def test_the_answers_are_right(index):
    for item in take(200, training(index.shards["train"])):
        shown = ("Ruiz", "Oslo") if item["key"].endswith("_0") else ("Weber", "Cairo")
        assert item["image"].shape == (3, 8, 8)
        if item["task"] == "caption":
            assert item["target"] == f"{shown[0]} in {shown[1]}."
        elif item["task"] == "sentence":
            assert (item["target"] == "yes") == any(name in item["instruction"] for name in shown)
        else:
            assert set(item["target"].split("; ")) <= set(shown)


def test_examples_of_one_visit_share_key_and_image(index):
    visits = itertools.groupby(take(80, training(index.shards["train"])), key=lambda item: item["key"])
    together = [list(items) for _, items in visits]
    assert max(map(len, together)) >= 5
    for items in together:
        assert all(item["image"] is items[0]["image"] for item in items)


def test_equal_seeds_give_equal_streams_and_other_seeds_other_ones(index):
    shards = index.shards["train"]
    pipeline = training(shards)
    once = text_of(take(300, pipeline))
    assert text_of(take(300, pipeline)) == once  # a second iterator of the same stream starts anew
    assert text_of(take(300, training(shards))) == once
    assert text_of(take(300, training(shards, seed=2))) != once


def test_the_stream_never_ends_and_says_other_things_in_the_next_epoch(index):
    items = take(2000, training(index.shards["train"]))
    seen = Counter(item["key"] for item in items)
    assert len(seen) == 24 and min(seen.values()) > 20
    contexts = {item["instruction"] for item in items if item["task"] == "caption"}
    assert len(contexts) > 24


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_of_a_data_loader_hold_the_mix_and_one_worker_changes_nothing(index, workers):
    def load(workers: int) -> list[list[tuple[str, ...]]]:
        loader = DataLoader(training(index.shards["train"]), 8, num_workers=workers, collate_fn=text_of)
        return take(12, loader)

    batches = load(workers)
    assert [Counter(task for _, task, *_ in batch)["sentence"] for batch in batches] == 12 * [4]
    assert (batches == load(0)) == (workers == 1)
    assert load(workers) == batches


def test_phases_change_the_mix_at_their_batch(index):
    phases = [
        {"until": 2, "tasks": {"caption": 1}, "contexts": {"none": 1}},
        {"until": 3, "tasks": {"sentence": 1}},
    ]
    items = take(6 * 8, training(index.shards["train"], phases=phases))
    tasks = [Counter(item["task"] for item in batch) for batch in batches_of(items, 8)]
    assert tasks[:3] == [{"caption": 8}, {"caption": 8}, {"sentence": 8}]
    assert all(set(count) == set(TASKS) for count in tasks[3:])
    assert not any("Ruiz" in item["instruction"] for item in items[:16])  # without context


def test_phases_begin_at_the_same_batch_whatever_worker_makes_it(index):
    phases = [{"until": 3, "tasks": {"caption": 1}}]
    loader = DataLoader(training(index.shards["train"], phases=phases), 8, num_workers=2, collate_fn=text_of)
    tasks = [{task for _, task, *_ in batch} for batch in take(5, loader)]
    assert tasks == 3 * [{"caption"}] + 2 * [set(TASKS)]


def test_the_text_processor_acts_on_the_data_and_leaves_the_templates(index):
    wording = Wording(text_processor=str.upper)
    plain = take(16, training(index.shards["train"]))
    for item, before in zip(take(16, training(index.shards["train"], wording=wording)), plain, strict=True):
        assert item["question"] == before["question"] != item["question"].upper()
        assert item["target"] == (
            before["target"] if before["target"] in ("yes", "no", "none") else before["target"].upper()
        )
        start, end = around_the_data(wording, item["task"])
        text = before["instruction"].removeprefix(start).removesuffix(end)
        assert item["instruction"] == start + text.upper() + end


def around_the_data(wording: Wording, task: str) -> tuple[str, str]:
    """What stands before and after the text in a task's template."""
    mark = "{sentence}" if task == "sentence" else "{context}"
    start, _, end = getattr(wording.templates, task).partition(mark)
    return start, end


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "at least 1 example was expected, found 0"),
        ({"batch_size": 3}, "3 examples cannot hold the 4 examples of the task sentence that come together"),
        (
            {"batch_size": 6, "recipe": TaskMixture(tasks={"sentence": 1})},
            "no multiple of the 4 examples of the task sentence that come together",
        ),
        ({"phases": [{"tasks": {"caption": 1}}]}, "'until' must be a batch after 0, found None"),
        ({"phases": [{"until": "soon"}]}, "'until' must be a batch after 0, found 'soon'"),
        ({"phases": [{"until": 5}, {"until": 5}]}, "'until' must be a batch after 5, found 5"),
        ({"phases": [{"until": 5, "taskz": {}}]}, "unknown key 'taskz'"),
    ],
)
def test_an_impossible_mix_is_refused_before_anything_is_read(changes, message):
    with pytest.raises(UserError, match=message):
        training((), **changes)


def test_samples_without_any_example_of_a_task_end_in_an_error(news):
    """Every sentence of this article is about the photo: there is no negative."""
    only_positive = dataclasses.replace(news(), sentences=news().sentences[:1])
    endless = itertools.repeat((RawSample("k", b"", b""), only_positive, torch.zeros(3, 1, 1)))
    mixer = TaskMixer(TaskMixture(tasks={"sentence": 1}), Wording(), batch_size=4)
    with pytest.raises(UserError, match="no example of the task sentence; check the data"):
        next(mixer(endless))


# ------------------------------------------------------------------------- tasks and budgets of other kinds


def weather() -> type[AlignmentTask]:
    @register_task
    class Weather(AlignmentTask):
        """A task of another package."""

        name = "stream_weather"

        def examples(self, sample, options, wording, budget, rng):
            return [self.example(wording.fill("Rain? {context}", "{context}", sample.headline), "no")]

    return Weather


def test_a_task_of_another_package_is_mixed_in_and_goes_on_where_it_stood(index):
    weather()
    recipe = TaskMixture(tasks={"caption": 1, "stream_weather": 0.7})
    items = take(40, training(index.shards["train"], recipe=recipe))
    assert Counter(item["task"] for item in items) == {"caption": 24, "stream_weather": 16}
    state = ConsumerState.from_text(items[15]["stream_state"])
    assert state.carry_over["stream_weather"] == pytest.approx(16 * 0.7 / 1.7 - 6)
    again = training(index.shards["train"], recipe=recipe)
    again.resume(2, {0: state})
    assert text_of(take(24, again)) == text_of(items[16:])


def test_a_state_of_an_older_version_is_read():
    state = ConsumerState.from_text("[[1,4,3,30,33,2],17,[0.5,1.0,0.25]]")
    assert state.position == StreamPosition(1, 4, 3, 30, 33, 2) and state.batch == 17
    assert state.carry_over == {"caption": 0.5, "sentence": 1.0, "entity": 0.25}
    assert state.to_text() == "[[1,4,3,30,33,2],17,[0.5,1.0,0.25]]"


def test_contexts_may_be_counted_in_tokens(index):
    stream = training(index.shards["train"], context_words=20, context_tokens=30)
    stream.count_tokens_with(len)  # a token is a letter
    start, end = around_the_data(Wording(), "caption")
    contexts = [
        item["instruction"].removeprefix(start).removesuffix(end)
        for item in take(16, stream)
        if item["task"] == "caption"
    ]
    assert contexts and all(0 < len(context) <= 30 for context in contexts)
    with pytest.raises(ValueError, match="needs count_tokens"):
        take(1, training(index.shards["train"], context_tokens=30))


@pytest.mark.parametrize("name", ["context_words", "context_tokens"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "10"])
def test_a_budget_is_a_whole_number(name, value):
    with pytest.raises(UserError, match=f"^run.{name}: a whole number of at least 1 was expected"):
        training((), **{name: value})


# ---------------------------------------------------------------------------------------- quotas of a batch

shares = st.fixed_dictionaries(dict.fromkeys(TASKS, st.floats(0, 10))).filter(
    lambda tasks: sum(tasks.values()) > 0.1
)


@st.composite
def mixes(draw) -> tuple[TaskMixture, int]:
    """A recipe and a batch size that the mixer takes."""
    recipe = TaskMixture(tasks=draw(shares), positives=draw(st.integers(1, 4)))
    visit = 2 * recipe.positives
    if {task for task, share in recipe.tasks.items() if share} == {"sentence"}:
        return recipe, visit * draw(st.integers(1, 8))
    return recipe, draw(st.integers(visit, 64))


def quotas(recipe: TaskMixture, batch_size: int, count: int, owed: dict[str, float]) -> list[dict[str, int]]:
    return [task_quota(recipe, batch_size, owed) for _ in range(count)]


def share_of(recipe: TaskMixture, task: str) -> float:
    return recipe.tasks.get(task, 0) / sum(recipe.tasks.values())


@settings(max_examples=300, deadline=None, derandomize=True)
@given(mixes())
def test_quotas_fill_the_batch_with_whole_visits(mix):
    recipe, size = mix
    for quota in quotas(recipe, size, 30, dict.fromkeys(TASKS, 0.0)):
        assert sum(quota.values()) == size and min(quota.values()) >= 0
        assert quota["sentence"] % (2 * recipe.positives) == 0
        assert all(not quota[task] for task in TASKS if not recipe.tasks[task])


@settings(max_examples=300, deadline=None, derandomize=True)
@given(mixes())
def test_in_the_long_run_the_shares_are_right(mix):
    recipe, size = mix
    visit = 2 * recipe.positives
    made = quotas(recipe, size, 400, dict.fromkeys(TASKS, 0.0))
    most = size // visit * visit / size  # of a batch that visits do not fill, sentences cannot have more
    sentences = min(share_of(recipe, "sentence"), most)
    assert sum(quota["sentence"] for quota in made) / (400 * size) == pytest.approx(sentences, abs=0.01)
    if share_of(recipe, "sentence") <= most:
        for task in TASKS:
            total = sum(quota[task] for quota in made) / (400 * size)
            assert total == pytest.approx(share_of(recipe, task), abs=0.01)


def test_what_one_phase_could_not_pay_does_not_flood_the_next():
    owed = dict.fromkeys(TASKS, 0.0)
    quotas(
        TaskMixture(tasks={"sentence": 99, "caption": 1}), 7, 1000, owed
    )  # at most 4 of 7 can be sentences
    made = quotas(TaskMixture(tasks={"sentence": 1, "caption": 9}), 7, 100, owed)
    assert sum(quota["sentence"] for quota in made) / 700 == pytest.approx(0.1, abs=0.02)


# --------------------------------------------------------------------------------- broken and hostile shards


def members(sample, photo: bytes, **changes) -> list[tuple[str, bytes]]:
    """A sample's members, some with other content, or left out where None."""
    content = {"jpg": photo, "json": json.dumps(sample.to_json()).encode(), **changes}
    return [(f"{sample.key}.{suffix}", data) for suffix, data in content.items() if data is not None]


BROKEN = {
    "no picture": ({"jpg": b"no picture"}, "it is no picture in a known format"),
    "empty picture": ({"jpg": b""}, "there is no photo (.jpg) beside its record"),
    "no photo": ({"jpg": None}, "there is no photo (.jpg) beside its record"),
    "no record": ({"json": None}, "there is no record (.json) beside its photo"),
    "no JSON": ({"json": b"{"}, "its JSON is broken"),
    "no UTF-8": ({"json": b"\xff\xfe\x00"}, "its JSON is broken"),
    "deep JSON": ({"json": b"[" * 100_000}, "its JSON is broken"),
    "a list": ({"json": b"[]"}, "a JSON object was expected"),
    "another schema": ({"json": b'{"schema": 0, "key": "k"}'}, "schema version 0 found, 1 expected"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_bad_sample_is_skipped_counted_and_logged(tar_of, news, photo, caplog, what):
    changes, message = BROKEN[what]
    shard = tar_of(
        [*members(news(0), photo(0)), *members(news(1), photo(1), **changes), *members(news(2), photo(2))]
    )
    decoder = Decoder(to_tensor)
    with caplog.at_level(logging.WARNING):
        good = list(decoder(read_shard(shard)))
    assert [raw.key for raw, _, _ in good] == ["train000_0", "train002_0"]
    assert (decoder.seen, decoder.skipped.total()) == (3, 1)
    (record,) = caplog.records
    assert "1 of 2 so far" in record.getMessage() and message in record.getMessage()


def test_a_photo_that_is_cut_off_is_skipped(tar_of, news, photo, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # what importing LAVIS does
    decoder = Decoder(to_tensor)
    assert list(decoder(read_shard(tar_of(members(news(), photo(0)[:900]))))) == []
    assert decoder.skipped == {"the picture cannot be read": 1}


def test_too_many_bad_samples_stop_the_run_with_a_table_of_causes(tar_of, news, photo):
    good = [member for number in range(40) for member in members(news(number), photo(0))]
    bad = [m for n in range(100, 112) for m in members(news(n), photo(0)[: 900 + n])]
    bad += [m for n in range(200, 212) for m in members(news(n), photo(0), json=b"{" * n)]
    with pytest.raises(UserError) as error:
        take(10_000, training([tar_of(good + bad)]))
    message = str(error.value)
    assert "samples were bad, at most 5% may be: " in message and "raise max_skipped" in message
    counts = message.partition("may be: ")[2].split("; ")[:-1]
    assert sorted(count.split(" × ")[1] for count in counts) == [
        "its JSON is broken",
        "the picture cannot be read",
    ]
    assert sum(int(count.split(" × ")[0]) for count in counts) == 21
    assert "\n" not in message


def test_a_few_bad_samples_do_not_flood_the_log(tar_of, news, photo, caplog):
    shard = tar_of([m for n in range(150) for m in members(news(n), b"broken")])
    list(Decoder(to_tensor, max_skipped=1.0)(read_shard(shard)))
    assert len(caplog.records) == 11


def test_the_error_reaches_the_main_process(tar_of, news, photo):
    shard = tar_of([m for n in range(30) for m in members(news(n), b"broken")])
    message = ""
    try:
        take(1, DataLoader(training([shard]), 8, num_workers=1, collate_fn=text_of))
    except UserError as error:
        message = str(error.with_traceback(None))  # a traceback that is kept keeps the worker, too
    assert "21 of 21 samples were bad" in message


class Trap:
    """Whoever unpickles this makes a folder."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_nothing_is_ever_unpickled(tar_of, news, photo, tmp_path):
    trap = tmp_path / "trap"
    poison = pickle.dumps(Trap(trap))
    extra = dict.fromkeys(("pickle", "pyd", "pkl", "pth", "pt", "npy", "npz", "cls", "mp"), poison)
    shard = tar_of([*members(news(0), photo(0), **extra), *members(news(1), photo(1), json=poison)])
    good = Shard(tar_of(members(news(0), photo(0), **extra)).path, 1)
    assert {item["key"] for item in take(20, training([shard], max_skipped=1.0))} == {"train000_0"}
    assert len(EvaluationSamples(index_of(good), "test", image_processor=to_tensor, wording=Wording())) == 1
    assert "its JSON is broken" in evaluation_of(shard)[1]["error"]
    assert not trap.exists()
    pickle.loads(poison)
    assert trap.exists()  # the trap works


def test_other_members_are_ignored(tar_of, news, photo):
    shard = tar_of([("readme.txt", b"hello"), *members(news(), photo(0), txt=b"notes"), ("__meta__", b"x")])
    assert [raw.key for raw in read_shard(shard)] == ["train000_0"]


def test_what_is_ignored_is_logged_once_for_each_suffix(tar_of, news, photo, caplog):
    extra = {"pickle": b"x", "txt": b"x"}
    shard = tar_of([m for n in range(9) for m in members(news(n), photo(0), **extra)] + [("LICENSE", b"x")])
    with caplog.at_level(logging.WARNING):
        others = OtherMembers()
        assert len(list(read_shard(shard, others))) == len(list(read_shard(shard, others))) == 9
    assert len(caplog.records) == 3
    assert caplog.records[0].getMessage() == (
        f"{shard.path}: 'train000_0.pickle' and other members with the suffix 'pickle' are ignored, "
        "only .jpg and .json are read"
    )


def test_a_stream_remembers_what_it_has_logged_and_another_one_does_not(tar_of, news, photo, caplog):
    shards = [tar_of([m for n in range(9) for m in members(news(n), photo(0), txt=b"x")])]
    for count in (1, 2):
        take(40, ShuffledSamples(shards, seed=1))
        assert len(caplog.records) == count


def test_a_shard_full_of_suffixes_does_not_flood_the_log(tar_of, caplog):
    assert list(read_shard(tar_of([(f"a.{number}", b"x") for number in range(500)]))) == []
    assert len(caplog.records) == 10


@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        ("truncated", "unexpected end of data"),
        ("gone", "No such file or directory"),
        ("no tar", "invalid header"),
        ("twice", "duplicate file name"),
    ],
)
def test_a_shard_that_cannot_be_read_is_one_clear_error(tar_of, news, photo, damage, cause):
    one = members(news(), photo(0))
    shard = tar_of(one if damage != "twice" else one + one[-1:])
    if damage == "truncated":
        os.truncate(shard.path, 1500)
    elif damage == "gone":
        shard.path.unlink()
    elif damage == "no tar":
        shard.path.write_bytes(b"not a tar file" * 1000)
    with pytest.raises(
        UserError, match=r"any-000000.tar: the shard cannot be read \(.*\); make it again"
    ) as error:
        list(read_shard(shard))
    assert cause in str(error.value) and "BufferedReader" not in str(error.value)


def test_the_image_processor_says_at_what_size_it_wants_the_picture(news):
    class Small:
        decode_size = 90

        def __call__(self, image: Image.Image) -> torch.Tensor:
            return torch.tensor(image.size)

    big = io.BytesIO()
    Image.new("RGB", (800, 400), "red").save(big, "JPEG")
    raw = RawSample("k", big.getvalue(), json.dumps(news().to_json()).encode())
    assert decode(raw, Small())[1].tolist() == [200, 100]
    assert decode(raw, lambda image: torch.tensor(image.size))[1].tolist() == [800, 400]


# ----------------------------------------------------------------------------------------------- evaluation


def index_of(*shards: Shard) -> SimpleNamespace:
    """As much of an index as evaluation reads."""
    return SimpleNamespace(folder=shards[0].path.parent, shards={"test": shards}, ner={"name": "none"})


def evaluation_of(*shards: Shard, **options) -> EvaluationSamples:
    return EvaluationSamples(
        index_of(*shards), "test", image_processor=to_tensor, wording=Wording(), **options
    )


def evaluation(index, **options) -> EvaluationSamples:
    return EvaluationSamples(index, "test", image_processor=to_tensor, wording=Wording(), **options)


KEYS = [f"test{number:03d}_{photo}" for number in range(5) for photo in (0, 1)]


def test_evaluation_reads_every_sample_once_in_order_any_number_of_times(index):
    samples = evaluation(index)
    assert len(samples) == 10 == index.samples("test")
    for _ in range(2):
        assert [samples[number]["key"] for number in range(10)] == KEYS
    assert (samples.split, samples.ner) == ("test", index.ner)


def test_evaluation_gives_what_was_written(index, news, photo):
    item = evaluation(index)[3]
    assert item["sample"] == news(1, 1, "test")
    assert torch.equal(item["image"], to_tensor(open_image(photo(3), "x")))
    assert item.keys() == {"image", "sample", "key", "index"}


def test_a_split_that_is_not_there_is_empty(index):
    assert len(EvaluationSamples(index, "val", image_processor=to_tensor, wording=Wording())) == 0


@pytest.mark.parametrize("limit", [0, 1, 4, 5, 99])
def test_the_limit(index, limit):
    samples = evaluation(index, limit=limit)
    assert [samples[number]["key"] for number in range(len(samples))] == KEYS[:limit]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_loader_batches_them(index, workers):
    samples = evaluation(index, other_image=True)
    loader = DataLoader(samples, 4, num_workers=workers, collate_fn=EvaluationSamples.collater)
    batches = list(loader)
    assert [key for batch in batches for key in batch["key"]] == KEYS
    assert [tuple(batch["image"].shape) for batch in batches] == [(4, 3, 8, 8), (4, 3, 8, 8), (2, 3, 8, 8)]
    assert batches[0]["other_image"].shape == (4, 3, 8, 8)


@pytest.mark.parametrize("limit", [3, 4, 5, 10])
def test_the_other_image_is_another_articles(index, photo, limit):
    pictures = [to_tensor(open_image(photo(seed), "x")) for seed in range(10)]
    samples = evaluation(index, other_image=True, limit=limit)
    for number in range(limit):
        other = samples[number]["other_image"]
        (found,) = [seed for seed, picture in enumerate(pictures) if torch.equal(picture, other)]
        assert found // 2 != number // 2 and found < limit


@pytest.mark.parametrize("limit", [1, 2])
def test_without_another_article_there_is_no_other_image(index, limit):
    with pytest.raises(UserError, match=f"the {limit} samples of 'test' are photos of one article"):
        evaluation(index, other_image=True, limit=limit)


def test_evaluation_refuses_a_shard_that_lacks_samples(tar_of, news, photo):
    whole, half = members(news(0), photo(0)), members(news(1), photo(1), jpg=None)
    shard = tar_of(whole + half)
    with pytest.raises(UserError, match="2 samples expected, 1 found; make the shards again"):
        evaluation_of(shard)


@pytest.mark.parametrize("content", [b"", b"no tar" * 1000])
def test_evaluation_refuses_what_is_no_tar_file(tmp_path, content):
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(UserError, match="a.tar: .*make"):
        evaluation_of(Shard(tmp_path / "a.tar", 1))


NO_PICTURE = "sample 'train000_0': it is no picture in a known format"


def test_evaluation_names_a_broken_sample_and_goes_on_with_the_others(tar_of, news, photo):
    shard = tar_of(members(news(0), b"broken") + members(news(1), photo(1)))
    samples = evaluation_of(Shard(shard.path, 2))
    assert samples[0] == {"index": 0, "key": "train000_0", "error": NO_PICTURE}
    batch = samples.collater([samples[0], samples[1]])
    assert batch["key"] == ["train001_0"] and len(batch["image"]) == 1
    assert batch["errors"] == [samples[0]]
    nothing = samples.collater([samples[0]])
    assert nothing["sample"] == [] and "image" not in nothing


def test_evaluation_leaves_out_what_is_done_and_keeps_the_places(tar_of, news, photo):
    shard = tar_of(members(news(0), photo(0)) + members(news(1), photo(1)))
    samples = evaluation_of(Shard(shard.path, 2))
    samples.leave_out([0])
    batch = samples.collater([samples[0], samples[1]])
    assert (len(samples), batch["index"], batch["errors"]) == (2, [1], [])
    assert samples.sample(0) == news(0)


def test_an_unreadable_record_does_not_take_the_other_photo_from_its_neighbours(tar_of, news, photo):
    shard = tar_of(
        members(news(0), photo(0))
        + [("b_0.jpg", photo(1)), ("b_0.json", b"{broken")]
        + members(news(2), photo(2))
    )
    samples = evaluation_of(Shard(shard.path, 3), other_image=True)
    assert "JSON is broken" in samples[1]["error"]
    assert samples[0]["other_image"].equal(samples[2]["image"])


def test_training_and_evaluation_agree_on_names_of_members(tar_of, news, photo):
    """The same file names are samples to both: folders with dots, suffixes in capitals."""
    record = json.dumps(news().to_json()).encode()
    shard = tar_of([("v1.0/a.JPG", photo(0)), ("v1.0/a.json", record)])
    shard = Shard(shard.path, 1)
    assert [raw.key for raw in read_shard(shard)] == ["v1.0/a"]
    assert len(evaluation_of(shard)) == 1


def test_a_shard_that_vanishes_is_one_clear_error(tar_of, news, photo):
    shard = tar_of(members(news(), photo(0)))
    samples = evaluation_of(shard)
    shard.path.unlink()
    assert "any-000000.tar: the shard cannot be read" in samples[0]["error"]
