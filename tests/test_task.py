"""The task: what two passes hand over, and the figures that come out, on an untrained model and by hand."""

from __future__ import annotations

import contextlib
import io
import json

import pytest
import torch
from lavis.common.registry import registry

from ealign_plugin.alignment.instructions import Templates
from ealign_plugin.errors import UserError
from ealign_plugin.news import Entity, NewsSample, Sentence
from ealign_plugin.task import SHUFFLED, NewsCaptioning


def sample(key: str = "a_0") -> NewsSample:
    maria, rain = "Maria Keller spoke in Oslo on 3 May.", "It rained."
    return NewsSample(
        key=key,
        split="test",
        caption="Maria Keller in Oslo on 3 May.",
        caption_entities=(
            Entity("Maria Keller", "PERSON", 0),
            Entity("Oslo", "GPE", 16),
            Entity("3 May", "DATE", 24),
        ),
        paragraphs=(f"{rain} {maria}",),
        sentences=(
            Sentence(rain, 0, 0),
            Sentence(
                maria,
                0,
                11,
                (Entity("Maria Keller", "PERSON", 0), Entity("Oslo", "GPE", 22), Entity("3 May", "DATE", 30)),
            ),
        ),
    )


class Oracle:
    """A stand-in for a model that reads perfectly and copies the end of what it is given."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.images_encoded = 0

    def parameters(self):
        yield torch.zeros(1)

    def encode_images(self, images):
        self.images_encoded += len(images)
        return images.flatten(1)[:, None]

    def score(self, features, prefix, candidates, answers, question):
        self.asked += [prefix + candidate for candidate in candidates]
        yes = torch.tensor([float("Maria" in candidate) for candidate in candidates])
        return torch.stack([yes, 1 - yes], dim=1).clamp(1e-6).log()

    def generate(self, samples, **_):
        answers = []
        for instruction in samples["instruction"]:
            listing = instruction.endswith("news photo:") and "List" in instruction
            answers.append(
                "Maria Keller; Bergen; Oslo; 3 May" if listing else "Maria Keller in Oslo on 3 May."
            )
        return answers


class Split:
    split, ner, templates = "test", {"name": "en_core_web_sm", "version": "3.8.0"}, Templates()


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """Both passes over two photos, and what was printed and written."""
    folder, printed = tmp_path_factory.mktemp("run"), io.StringIO()
    task = NewsCaptioning({"contexts": ["head", "refined"], "shuffled_images": True, "context_words": 8})
    model = Oracle()
    task.before_evaluation(model, Split)
    samples = [sample("a_0"), sample("b_0")]
    batch = {"image": torch.zeros(2, 3, 4, 4), "other_image": torch.ones(2, 3, 4, 4), "sample": samples}
    records = task.evaluation(model, [batch])
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setitem(registry.mapping["paths"], "output_dir", str(folder))
        log = task.after_evaluation(records, "test", 0)
    return task, model, records, log, folder, printed.getvalue()


def test_every_sentence_is_judged_and_the_selected_one_is_read(evaluated):
    _, model, records, *_ = evaluated
    assert model.asked[0] == "Is this sentence about the photo? It rained. Answer:"
    assert len(model.asked) == 2 * 2 * 2  # sentences × photos × (own image, another's)
    by_context = {record["context"]: record for record in records if record["key"] == "a_0"}
    assert by_context["head"]["context_sentences"] == [0]
    assert by_context["refined"]["context_text"] == "Maria Keller spoke in Oslo on 3 May."
    assert by_context["refined"]["selected"] == [
        {"index": 1, "score": 1.0, "text": "Maria Keller spoke in Oslo on 3 May."}
    ]
    assert by_context["refined"]["entities"] == ["Maria Keller", "Oslo", "3 May"]
    assert by_context["refined"]["invented"] == ["Bergen"]


def test_each_image_is_encoded_once_for_both_passes_and_all_contexts(evaluated):
    assert evaluated[1].images_encoded == 2 + 2


def test_figures_of_a_perfect_model(evaluated):
    _, _, _, log, _, _ = evaluated
    assert log["sentence_auc_hard"] is None or log["sentence_auc_hard"] == 1.0
    assert log["sentence_auc"] == 1.0 and log["entity_list_f1"] == 1.0
    assert log["refined/people_right"] == log["refined/entity_f1"] == 1.0
    assert log["agg_metrics"] == log["refined/cider"]
    assert f"refined{SHUFFLED}/bleu4" in log


def test_predictions_and_report_are_written_whole(evaluated):
    _, _, records, _, folder, printed = evaluated
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert len(lines) == len(records) == 6
    assert not [name for name in lines[0] if name.startswith("_")]
    assert (folder / "report.txt").read_text() in printed
    assert sorted(file.name for file in folder.iterdir()) == ["predictions.jsonl", "report.txt"]


def test_without_java_meteor_is_left_out_and_said_so(evaluated, monkeypatch, capsys, tmp_path):
    task, _, records, *_ = evaluated
    monkeypatch.setitem(registry.mapping["paths"], "output_dir", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    task.after_evaluation(records, "test", 0)
    printed = capsys.readouterr().out
    assert "METEOR is left out" in printed and "| METEOR" not in printed


def test_validation_is_cheaper_than_the_test(monkeypatch):
    task = NewsCaptioning(
        {"contexts": ["head", "refined"], "valid_contexts": ["head"], "shuffled_images": True}
    )
    validation = type("Validation", (Split,), {"split": "val"})
    model = Oracle()
    task.before_evaluation(model, validation)
    records = task.evaluation(model, [{"image": torch.zeros(1, 3, 4, 4), "sample": [sample()]}])
    assert [record["context"] for record in records] == ["head"]


def test_the_loss_of_held_out_captions_is_the_mean_over_photos_and_may_stand_alone():
    class Model(Oracle):
        read: list[str] = []

        def __call__(self, samples):
            self.read.append(samples["instruction"][0])
            assert samples["target"] == [one.caption for one in photos]
            return {f"loss_{i}": torch.tensor(1.0 + i) for i in range(len(samples["target"]))}

    photos = [sample("a_0"), sample("b_0")]
    task = NewsCaptioning({"valid_contexts": [], "caption_loss": ["none", "oracle"]})
    task.before_evaluation(model := Model(), type("Validation", (Split,), {"split": "val"}))
    records = task.evaluation(model, [{"image": torch.zeros(2, 3, 4, 4), "sample": photos}])
    without, oracle = model.read
    assert without == Templates().caption_prompt("")[0]
    assert "Maria Keller spoke in Oslo on 3 May." in oracle
    log = task.after_evaluation(records, "val", 0)
    assert log == {"agg_metrics": -1.5, "caption_loss/none": 1.5, "caption_loss/oracle": 1.5}


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({"caption_loss": ["refined"]}, "run.caption_loss: 'refined' needs pass 1"),
        ({"valid_contexts": []}, "run.valid_contexts: at least one"),
        ({"contexts": ["haed"]}, "context strategy 'haed' is unknown"),
        ({"contexts": []}, "run.contexts: at least one"),
        ({"protocol": "coco"}, "coco"),
        ({"context_words": 0}, "run.context_words: at least 1 was expected, found 0"),
        ({"top_k": -1}, "run.top_k: at least 1"),
    ],
)
def test_bad_run_values_are_refused_before_any_work(run, message):
    with pytest.raises(UserError, match=message):
        NewsCaptioning(run)


def test_shuffled_images_need_a_data_set_that_gives_them():
    task = NewsCaptioning({"shuffled_images": True})
    task.before_evaluation(Oracle(), Split)
    with pytest.raises(UserError, match="other_image"):
        task.evaluation(Oracle(), [{"image": torch.zeros(1, 3, 4, 4), "sample": [sample()]}])


def test_an_empty_split_is_one_clear_error():
    task = NewsCaptioning({})
    task.before_evaluation(Oracle(), Split)
    with pytest.raises(UserError, match="split 'test': it holds no sample"):
        task.after_evaluation([], "test", 0)
