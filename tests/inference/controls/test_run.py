"""Controls in an evaluation: their rows, what they cost, and that they continue after an interruption."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from ealign_plugin.errors import UserError
from ealign_plugin.inference.controls.names import CONTROLS, row_name
from ealign_plugin.inference.controls.run import _WRITE
from ealign_plugin.metrics.subsets import TrainingNames
from ealign_plugin.news import Entity, Sentence
from tests.inference.factories import Oracle, Split, evaluate, sample

pytestmark = pytest.mark.usefixtures("without_java")

RIGHT, OTHER = 1.0, 2.0
"""What a pixel is in a photo, and in another article's."""


class Looking(Oracle):
    """Copies the sentence that it reads; in pass 1 it knows the photo of Oslo, and that no other is."""

    def score(self, features, prefix, candidates, answers, question):
        seen = "Oslo" if features.mean() == RIGHT else "rained"
        yes = torch.tensor([float(seen in candidate) for candidate in candidates])
        return torch.stack([yes, 1 - yes], dim=1).clamp(1e-6).log()

    def generate(self, samples, **_):
        answers = []
        for instruction, features in zip(samples["instruction"], samples["features"], strict=True):
            read = instruction.removeprefix("Article: ").partition(" Write ")[0]
            listing = "List" in instruction
            answers.append("" if listing else f"{'Seen: ' * (features.mean() == RIGHT).item()}{read}")
        return answers


def split_of(*keys: str) -> Split:
    """Photos of articles of their own, with a further sentence about Leo."""
    leo = "Leo Ito and Eva Lund of Bergen sang."
    rows = []
    for key in keys:
        one = sample(key)
        start = len(one.paragraphs[0]) + 1
        entities = tuple(
            Entity(name, label, leo.index(name))
            for name, label in (("Leo Ito", "PERSON"), ("Eva Lund", "PERSON"), ("Bergen", "GPE"))
        )
        rows.append(
            replace(
                one,
                article_id=key,
                headline="Leo sang in Bergen",
                paragraphs=(f"{one.paragraphs[0]} {leo}",),
                sentences=(*one.sentences, Sentence(leo, 0, start, entities)),
            )
        )
    split = Split(*rows)
    split.training = TrainingNames(frozenset({"maria keller"}), frozenset({"maria", "keller"}))
    return split


def batches(split):
    for batch in split.batches(other_image=torch.full((1, 3, 4, 4), OTHER)):
        yield {**batch, "image": torch.full_like(batch["image"], RIGHT)}


RUN = {"contexts": ["head", "refined"], "context_words": 50}


@pytest.fixture(scope="module")
def tested(tmp_path_factory):
    """All controls of two photos: report, report.txt, and the lines of one photo by row."""
    folder, split, model = tmp_path_factory.mktemp("run"), split_of("a_0", "b_0"), Looking()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "")
        one, _, _ = evaluate(folder, model, split, batches(split), **RUN, controls=[*CONTROLS], subsets=True)
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    by_row = {line["context"]: line for line in lines if line["key"] == "a_0"}
    return one.report, (folder / "report.txt").read_text(), by_row, model


def test_every_control_has_a_way_to_write_it():
    assert list(_WRITE) == list(CONTROLS)


def test_every_control_is_a_row_of_table_metrics_and_predictions(tested):
    report, text, lines, _ = tested
    rows = ["head", "refined", *(row_name(name, "refined") for name in CONTROLS)]
    assert list(report["contexts"]) == list(lines) == rows
    assert all(f"| {row} " in text for row in rows)
    assert report["main_context"] == "refined"
    assert "people_right_minus_refined_low" in report["contexts"]["blank_photo"]


def test_slow_metrics_are_left_out_of_controls(tmp_path, monkeypatch):
    monkeypatch.setattr("ealign_plugin.metrics.builtin.find_java", lambda: "java")
    monkeypatch.setattr("ealign_plugin.metrics.builtin.score_meteor", lambda *_: 0.25)
    split = split_of("a_0")
    controls = ["tfidf", "other_photo"]
    one, _, _ = evaluate(tmp_path, Looking(), split, batches(split), **RUN, controls=controls)
    meteor = {name: row["meteor"] for name, row in one.report["contexts"].items()}
    assert meteor == {"head": 0.25, "refined": 0.25, "tfidf": None, "refined (images shuffled)": 0.25}


def test_groups_of_people_are_counted_in_the_main_context(tested):
    assert "(strangers on 0 photos; unseen last names on 0 photos; known on 2 photos)" in tested[1]


def test_the_four_cells_of_right_and_other_photo(tested):
    captions = {row: line["caption"] for row, line in tested[2].items()}
    maria = "Maria Keller spoke in Oslo on 3 May."
    assert captions["refined"] == f"Seen: {maria}"
    assert captions["other_photo_pass1"] == "Seen: It rained."
    assert captions["other_photo_pass2"] == maria
    assert captions["refined (images shuffled)"] == "It rained."
    assert captions["blank_photo"] == "It rained."  # its pixels are 0, which is neither


def test_as_many_words_of_other_sentences(tested):
    lines = tested[2]
    words = len(lines["refined"]["context_text"].split())
    for control in ("random_sentences", "most_names", "tfidf"):
        assert 0 < len(lines[control]["context_text"].split()) <= words
    for control in ("most_names", "tfidf"):  # most people; the headline's words
        assert lines[control]["context_text"] == "Leo Ito and Eva Lund of Bergen sang."


def test_a_model_that_reads_is_not_moved_by_new_names(tested):
    report, _, lines, _ = tested
    renamed, figures = lines["renamed"], report["contexts"]["renamed"]
    assert "Maria" not in renamed["reference"] and "Keller" not in renamed["context_text"]
    assert renamed["reference"].split()[:2] == renamed["context_text"].split()[:2]
    assert figures["people_right"] == report["contexts"]["refined"]["people_right"] == 1.0
    assert figures["photos_strangers"] == 2  # to the training, which knows Maria Keller
    assert "photos_strangers" not in report["contexts"]["refined"]


def test_a_model_that_recognises_is(tmp_path):
    class Recognising(Looking):
        def generate(self, samples, **options):
            return ["Maria Keller in Oslo." for _ in samples["instruction"]]

    split = split_of("a_0", "b_0")
    one, _, _ = evaluate(tmp_path, Recognising(), split, batches(split), **RUN, controls=["renamed"])
    assert one.report["contexts"]["refined"]["people_right"] == 1.0
    assert one.report["contexts"]["renamed"]["people_right"] == 0.0


def test_the_twin_table_changes_the_captions_of_head_alone(tmp_path):
    class Mistaken(Looking):
        def generate(self, samples, **options):
            return ["Susan Campbell in Oslo." for _ in samples["instruction"]]

    split = split_of("a_0")
    one, _, _ = evaluate(tmp_path, Mistaken(), split, batches(split), **RUN, controls=["twin_table"])
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert [line["caption"] for line in lines] == [*["Susan Campbell in Oslo."] * 2, "Maria Keller in Oslo."]
    assert one.report["contexts"]["twin_table"]["people_right"] == 1.0


def test_another_scene_joins_the_oracle(tested):
    assert len(tested[2]["oracle_other_scene"]["context_sentences"]) == 2
    assert 1 in tested[2]["oracle_other_scene"]["context_sentences"]


def test_other_photos_are_encoded_once_for_all_controls(tested):
    assert tested[3].images_encoded == 3 * 2  # own, another's, grey


def test_an_interrupted_test_with_controls_ends_in_the_same_files(tmp_path):
    class Interrupted(Looking):
        def encode_images(self, images):
            if self.images_encoded >= 6:
                raise KeyboardInterrupt
            return super().encode_images(images)

    def test(model):
        split = split_of("a_0", "b_0", "c_0")
        evaluate(tmp_path, model, split, batches(split), **RUN, controls=[*CONTROLS])
        return [(tmp_path / name).read_bytes() for name in ("predictions.jsonl", "report.txt")]

    undisturbed = test(Looking())
    with pytest.raises(KeyboardInterrupt):
        test(Interrupted())
    again = Looking()
    assert test(again) == undisturbed
    assert again.images_encoded == 3  # one photo was left


@pytest.mark.parametrize("name", ["other_photo", "other_photo_pass1", "other_photo_pass2"])
def test_other_photos_need_a_data_set_that_gives_them(tmp_path, name):
    with pytest.raises(UserError, match=f"'{name}' needs another article's photo"):
        evaluate(tmp_path, Looking(), split_of("a_0"), controls=[name])


def test_shuffled_images_is_another_word_for_other_photo(tmp_path):
    split = split_of("a_0")
    one, _, _ = evaluate(tmp_path, Looking(), split, batches(split), **RUN, shuffled_images=True)
    assert list(one.report["contexts"]) == ["head", "refined", "refined (images shuffled)"]
