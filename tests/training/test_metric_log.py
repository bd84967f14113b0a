"""log.txt and metrics.json."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ealign_plugin.errors import UserError
from ealign_plugin.training.metric_log import MetricLog, RunningMeans


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.txt").read_text().splitlines()]


def test_means_are_of_the_values_that_there_were():
    means = RunningMeans()
    for values in ({"loss": 2.0}, {"loss": 4.0, "loss_entity": 7.0}):
        means.add(values)
    assert means.means() == {"loss": 3.0, "loss_entity": 7.0}
    means.reset()
    assert means.means() == {}


def test_means_go_on_from_json():
    means, whole = RunningMeans(), RunningMeans()
    for value in (0.1, 0.2):
        means.add({"loss": value})
    again = RunningMeans(json.loads(json.dumps(means.sums)))
    again.add({"loss": 0.3})
    for value in (0.1, 0.2, 0.3):
        whole.add({"loss": value})
    assert again.means() == whole.means()
    assert means.sums == {"loss": [pytest.approx(0.3), 2]}  # the sums are copied


def test_a_line_is_a_json_object(tmp_path):
    log = MetricLog(tmp_path)
    log.add("step", {"iters": 1, "loss": 0.5})
    log.add("val", {"iters": 1, "agg_metrics": 0.1})
    assert (
        lines(tmp_path)
        == log.lines
        == [
            {"split": "step", "iters": 1, "loss": 0.5},
            {"split": "val", "iters": 1, "agg_metrics": 0.1},
        ]
    )


@pytest.fixture
def log(tmp_path) -> MetricLog:
    """Of a run that was killed in its fourth iteration, and half a line."""
    log = MetricLog(tmp_path)
    for iters in (1, 2, 3):
        log.add("step", {"iters": iters})
        if iters == 2:
            log.add("train", {"iters": 2})
            log.add("val", {"iters": 2})
    with open(tmp_path / "log.txt", "a") as file:
        file.write('{"split": "st')
    return MetricLog(tmp_path)


@pytest.mark.parametrize(
    ("iters", "ended", "kept"),
    [
        (0, True, []),
        (1, False, ["step 1"]),
        (2, True, ["step 1", "step 2", "train 2", "val 2"]),
        (2, False, ["step 1", "step 2"]),
        (3, False, ["step 1", "step 2", "train 2", "val 2", "step 3"]),
    ],
)
def test_what_comes_after_the_checkpoint_is_cut_off(log, tmp_path, iters, ended, kept):
    log.cut(iters, ended)
    assert [f"{line['split']} {line['iters']}" for line in lines(tmp_path)] == kept
    assert log.lines == lines(tmp_path)


def test_without_a_log_there_is_nothing_to_cut(tmp_path):
    MetricLog(tmp_path).cut(3, True)
    assert not list(tmp_path.iterdir())


def test_the_metrics_are_those_of_inner_epochs_validations_and_the_test(log, tmp_path):
    log.cut(2, True)
    log.write_metrics(best_iters=2, test={"head": {"cider": 1.0}}, valid_splits=["val"])
    assert json.loads((tmp_path / "metrics.json").read_text()) == {
        "best_iters": 2,
        "test": {"head": {"cider": 1.0}},
        "train": [{"split": "train", "iters": 2}],
        "validation": [{"split": "val", "iters": 2}],
    }


def test_a_log_that_cannot_be_written_is_one_message(tmp_path):
    log = MetricLog(tmp_path / "run")
    log.folder.mkdir()
    shutil.rmtree(log.folder)
    with pytest.raises(UserError, match="log.txt: it cannot be written .No such file.*; make room there"):
        log.add("step", {"iters": 1})
