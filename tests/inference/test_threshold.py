"""The threshold of pass 1, chosen on validation for a figure of pass 2."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from ealign_plugin.errors import UserError
from ealign_plugin.inference.evaluator import Evaluator
from ealign_plugin.inference.options import InferenceOptions
from ealign_plugin.inference.settings import NAME, CaptioningSettings
from ealign_plugin.inference.threshold import (
    check_threshold,
    context_to_choose_by,
    settle_threshold,
    spread,
)
from ealign_plugin.news import Entity, NewsSample, Sentence
from tests.inference.factories import Oracle, Split, evaluator, sample

RIGHT, WRONG, RAIN = "Maria Keller spoke in Oslo on 3 May.", "Leo Brandt stayed in Turin.", "It rained."


def three_sentences(key: str) -> NewsSample:
    """One sentence is about the photo, one names other people, one nobody."""
    entities = (Entity("Leo Brandt", "PERSON", 0), Entity("Turin", "GPE", 21))
    rain, right = sample().sentences
    return replace(sample(key), sentences=(right, Sentence(WRONG, 0, 40, entities), replace(rain, start=80)))


class Copying(Oracle):
    """A model whose P(yes) of each sentence is given, and whose caption is what it reads."""

    def __init__(self, right: float, wrong: float, rain: float) -> None:
        super().__init__()
        self.scores = {RIGHT: right, WRONG: wrong, RAIN: rain}
        self.written: list[str] = []

    def score(self, features, prefix, candidates, answers, question):
        self.asked += candidates
        yes = torch.tensor([self.scores[candidate.removesuffix(" Answer:")] for candidate in candidates])
        return torch.stack([yes, 1 - yes], dim=1).log()

    def generate(self, samples, **_):
        texts = [text.removeprefix("Article: ") for text in samples["instruction"]]
        captions = [text.removesuffix(" Write the caption of this news photo:") for text in texts]
        self.written += [text for text in captions if "List the names" not in text]
        return captions


class Again:
    """Batches that can be read twice, as a loader's; of one process its share."""

    def __init__(self, split: Split, rank: int = 0, ranks: int = 1) -> None:
        self.split, self.rank, self.ranks = split, rank, ranks

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (batch for i, batch in enumerate(self.split.batches()) if i % self.ranks == self.rank)


class Validation(Split):
    split = "val"


def validation(photos: int = 4) -> Validation:
    return Validation(*(three_sentences(f"{number}_0") for number in range(photos)))


def choose(model: Copying, split: Split, folder: Path | None = None, **run: Any) -> Evaluator:
    one = evaluator({"threshold": "auto", "contexts": ["head", "refined"], **run})
    settle_threshold(one, model, folder, (split, Again(split)))
    return one


@pytest.mark.parametrize(
    ("right", "wrong", "rain", "least", "most"),
    [
        # A third of the sentences is positive: the corrected probability is 0.5 at 2/3.
        (0.99, 0.52, 0.51, 2 / 3, 2 / 3),  # it is right
        (0.60, 0.40, 0.10, 0.40, 0.60),  # too high: nothing would be selected, and the head be read
        (0.97, 0.90, 0.10, 0.90, 0.97),  # too low: other people would be named too
    ],
)
def test_the_threshold_with_the_best_captions_is_taken(right, wrong, rain, least, most):
    chosen = choose(Copying(right, wrong, rain), validation())
    threshold = chosen.options.threshold
    assert isinstance(threshold, float) and least - 1e-9 <= threshold <= most + 1e-9
    best, *others = sorted((one["figure"] for one in chosen.threshold_choice["candidates"]), reverse=True)
    assert best == 1.0 and all(figure < 1 for figure in others)


def test_the_choice_says_what_was_tried_and_on_what(caplog):
    caplog.set_level("INFO")
    choice = choose(Copying(0.99, 0.52, 0.51), validation()).threshold_choice
    assert (choice["figure"], choice["context"], choice["split"]) == ("entity_f1", "refined", "val")
    assert (choice["photos"], choice["positives"]) == (4, pytest.approx(1 / 3))
    first, second, third = choice["candidates"]
    assert first["threshold"] == choice["threshold"] and first["corrected"] == pytest.approx(0.5)
    assert [one["selected"] for one in (first, second, third)] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert second["threshold"] == pytest.approx(0.515) and third["threshold"] == 0.0
    for one in choice["candidates"]:
        assert f"Threshold {one['threshold']:.4f} (corrected {one['corrected']:.4f}) selects" in caplog.text
    assert (
        "Threshold 0.6667, chosen on 4 photos of 'val' (33.3% of the sentences are positive)" in caplog.text
    )


def test_where_all_are_as_good_the_corrected_probability_stays():
    choice = choose(Copying(0.99, 0.52, 0.51), validation(), threshold_figure="bleu4", context_words=7)
    assert len({one["figure"] for one in choice.threshold_choice["candidates"]}) == 1  # one sentence fits
    assert choice.options.threshold == pytest.approx(2 / 3)


def test_each_selection_is_captioned_once_and_each_sentence_scored_once():
    model = Copying(0.99, 0.52, 0.51)
    choose(model, validation(4), threshold_candidates=20)
    assert len(model.asked) == 3 * 4 and len(model.written) == 3 * 4
    few = Copying(0.99, 0.52, 0.51)
    choose(few, split := validation(40), threshold_photos=5, threshold_candidates=2)
    assert len(few.asked) == 3 * 5 and len(few.written) <= 2 * 5
    assert split.left_out == set()  # the split is whole again


def test_photos_are_spread_over_the_split():
    assert spread(40, 5) == [0, 8, 16, 24, 32]
    assert spread(3, 200) == [0, 1, 2] and spread(0, 5) == []


def test_the_captions_that_decide_are_those_of_a_tested_context_that_reads_a_selection():
    assert context_to_choose_by(["head", "supplemented", "refined"]) == "refined"
    assert context_to_choose_by(["head", "supplemented"]) == "supplemented"
    assert context_to_choose_by(["head", "oracle"]) == "refined"  # a captioner may read it


def test_a_split_without_sentences_is_one_clear_error():
    bare = Validation(replace(sample(), sentences=()))
    with pytest.raises(UserError, match="auto found, but the photos of 'val' have no sentence"):
        choose(Copying(0.9, 0.5, 0.1), bare)


# What a checkpoint carries


def carrying(folder: Path, choice: dict[str, Any]) -> Path:
    settings = CaptioningSettings(model={}, options=InferenceOptions(threshold="auto"))
    (folder / NAME).write_bytes(settings.with_threshold(choice).to_bytes())
    return folder


def test_what_was_chosen_is_kept_and_taken_without_a_validation(tmp_path):
    chosen = choose(Copying(0.60, 0.40, 0.10), validation())
    folder = carrying(tmp_path, chosen.threshold_choice)
    assert CaptioningSettings.read(folder / NAME).options.threshold == chosen.options.threshold
    again = evaluator({"threshold": "auto"})
    assert settle_threshold(again, Oracle(), folder, None) is None  # nothing new to keep
    assert (again.options.threshold, again.threshold_choice) == (
        chosen.options.threshold,
        chosen.threshold_choice,
    )


def test_for_another_figure_it_is_chosen_anew(tmp_path):
    folder = carrying(tmp_path, choose(Copying(0.60, 0.40, 0.10), validation()).threshold_choice)
    other = choose(Copying(0.97, 0.90, 0.10), validation(), folder, threshold_figure="people_right")
    assert other.threshold_choice["figure"] == "people_right" and other.options.threshold > 0.9


def test_with_neither_choice_nor_validation_it_is_one_clear_error(tmp_path):
    settings = CaptioningSettings(model={})  # of a run whose threshold was a number
    (tmp_path / NAME).write_bytes(settings.to_bytes())
    for folder in (tmp_path, tmp_path / "none", None):
        with pytest.raises(UserError, match=r"run.threshold: auto found; .*there is no validation split"):
            settle_threshold(evaluator({"threshold": "auto"}), Oracle(), folder, None)


def test_a_number_is_taken_as_it_is():
    one = evaluator({"threshold": 0.3})
    assert settle_threshold(one, Oracle(), None, None) is None
    assert (one.options.threshold, one.threshold_choice) == (0.3, None)


# Before and after it is chosen


def test_a_config_that_cannot_choose_is_refused_before_the_training():
    with pytest.raises(
        UserError, match=r"auto found beside run.valid_splits: \[\]; name in run.valid_splits"
    ):
        check_threshold(evaluator({"threshold": "auto"}), {"valid_splits": []})
    with pytest.raises(UserError, match="run.threshold_figure: 'meteor' found"):
        check_threshold(evaluator({"threshold": "auto", "threshold_figure": "meteor"}), {})
    check_threshold(evaluator({"threshold": "auto"}), {"valid_splits": [], "evaluate": True})
    check_threshold(evaluator({"threshold": 0.4, "threshold_figure": "meteor"}), {"valid_splits": []})
    for wrong in ("automatic", True, float("nan")):
        with pytest.raises(
            UserError, match="run.threshold: found .*, expected a number of at least 0, null, or auto"
        ):
            evaluator({"threshold": wrong})


def test_a_validation_takes_one_half_and_a_test_waits_for_the_choice(tmp_path):
    one, split = evaluator({"threshold": "auto"}), validation()
    one.start(split, tmp_path)
    (record, *_) = one.evaluate(Copying(0.99, 0.52, 0.49), split.batches())
    assert record["first"]["selected"] == [0, 1]
    one.start(test := Split(three_sentences("a_0")), tmp_path)
    with pytest.raises(UserError, match="run.threshold: auto found, and none was chosen for these weights"):
        one.evaluate(Copying(0.99, 0.52, 0.49), test.batches())


def test_the_test_takes_it_and_its_report_says_so(tmp_path, without_java, capsys):
    model, test = Copying(0.97, 0.90, 0.10), Split(three_sentences("a_0"))
    one = choose(model, validation())
    one.start(test, tmp_path)
    one.finish(one.evaluate(model, test.batches()), "test")
    (line,) = [
        line
        for line in map(json.loads, (tmp_path / "predictions.jsonl").read_text().splitlines())
        if line["context"] == "refined"
    ]
    assert line["context_text"] == RIGHT
    assert one.report["threshold"] == one.options.threshold
    assert one.report["threshold_choice"] == one.threshold_choice
    assert f"Threshold {one.options.threshold:.4f}, chosen on 4 photos of 'val'" in capsys.readouterr().out


# Several processes


def chosen_by_this_process() -> dict[str, Any]:
    split = validation(7)
    one = evaluator({"threshold": "auto", "contexts": ["refined"]})
    model = Copying(0.60, 0.40, 0.10)
    settle_threshold(one, model, None, (split, Again(split, dist.get_rank(), dist.get_world_size())))
    assert 0 < len(model.asked) < 3 * 7
    return dict(one.threshold_choice or {})


def test_two_processes_choose_what_one_does(process_pair):
    split = validation(7)
    alone = choose(Copying(0.60, 0.40, 0.10), split, contexts=["refined"]).threshold_choice
    assert process_pair(chosen_by_this_process) == [alone, alone]
