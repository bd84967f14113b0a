"""Intervals, differences and groups of people in metrics.json and report.txt."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ealign_plugin.metrics.subsets import TrainingNames
from tests.inference.factories import Oracle, Split, evaluate, sample

pytestmark = pytest.mark.usefixtures("without_java")


class Hasty(Oracle):
    """Names the right person only where the article begins with her; else somebody of the training."""

    def generate(self, samples, **options):
        answers = super().generate(samples, **options)
        return [
            answer if "Maria" in instruction or "List" in instruction else "Ana Ruiz in Oslo."
            for answer, instruction in zip(answers, samples["instruction"], strict=True)
        ]


class TwoPhotosEach(Split):
    """Articles of two photos; the head of every other article names the person."""

    def __init__(self, articles=8):
        rows = []
        for number in range(articles):
            for photo in (0, 1):
                one = replace(sample(f"a{number}_{photo}"), article_id=f"a{number}")
                rows.append(replace(one, sentences=one.sentences[::-1]) if number % 2 else one)
        super().__init__(*rows)


RUN = {"contexts": ["head", "refined"], "context_words": 8}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    split = TwoPhotosEach()
    split.training = TrainingNames(captions=frozenset({"ana ruiz"}), words=frozenset({"ana", "ruiz"}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "")
        one, _, _ = evaluate(folder, Hasty(), split, **RUN, subsets=True)
    return one.report, (folder / "report.txt").read_text()


def test_every_row_has_intervals_by_article(report):
    assert report[0]["articles"] == 8
    head, refined = (report[0]["contexts"][name] for name in ("head", "refined"))
    assert head["people_right"] == 0.5
    # Eight articles, of which each is right or wrong as a whole: a binomial of 8, not of 16.
    assert (head["people_right_low"], head["people_right_high"]) == (0.125, 0.875)
    assert (refined["people_right_low"], refined["people_right_high"]) == (1.0, 1.0)
    assert head["entity_f1_low"] < head["entity_f1"] < head["entity_f1_high"]
    assert head["cider_low"] <= head["cider"] <= head["cider_high"]


def test_every_other_row_has_its_difference_from_the_main_context(report):
    head, refined = (report[0]["contexts"][name] for name in ("head", "refined"))
    assert head["people_right_minus_refined"] == -0.5
    assert head["people_right_minus_refined_low"] == -0.875
    assert head["people_right_minus_refined_high"] == -0.125
    assert not any("minus" in key for key in refined)


def test_people_whom_the_training_did_not_name_have_figures_apart(report):
    head = report[0]["contexts"]["head"]
    assert head["people_right_strangers"] == head["people_right_unseen_last_names"] == 0.5
    assert head["photos_strangers"] == 16
    # Half of the references are found; the wrong name is one that the training knew.
    assert head["person_f1_strangers"] == pytest.approx(2 / 3)
    assert head["person_f1_strangers_low"] < 2 / 3 < head["person_f1_strangers_high"]
    assert not any(key.endswith("_known") for key in head)  # no photo shows any


def test_the_report_shows_both(report):
    text = report[1]
    assert "95 % intervals (8 articles resampled 1,000 times), and differences from refined:" in text
    assert "| head    | 50.0 [12.5, 87.5]    | -50.0 [-87.5, -12.5] |" in text
    assert "People by what the training knew of their names (strangers on 16 photos; unseen last" in text
    assert "| context | strangers: people right | strangers: PERSON F1 " in text


def test_groups_of_people_are_left_out_where_nobody_asks(tmp_path):
    one, _, _ = evaluate(tmp_path, Oracle(), TwoPhotosEach(2), **RUN)
    assert not any("strangers" in key for key in one.report["contexts"]["head"])
    assert "People by what the training knew" not in (tmp_path / "report.txt").read_text()


def test_a_single_article_tells_no_interval(tmp_path):
    one, _, _ = evaluate(tmp_path, Oracle(), TwoPhotosEach(1), **RUN)
    assert one.report["articles"] == 1
    assert not any(key.endswith("_low") for key in one.report["contexts"]["head"])
    assert "intervals" not in (tmp_path / "report.txt").read_text()


def test_only_figures_that_are_measured_have_intervals(tmp_path):
    one, _, _ = evaluate(tmp_path, Oracle(), TwoPhotosEach(2), **RUN, metrics=["captions"])
    head = one.report["contexts"]["head"]
    assert "cider_low" in head and "people_right_low" not in head
