"""The evaluator: what two passes hand over, and the figures that come out, on a model made by hand."""

from __future__ import annotations

import contextlib
import io
import json

import pytest
import torch

from ealign_plugin.alignment.prompts import Wording
from ealign_plugin.errors import UserError
from ealign_plugin.inference.controls.names import SHUFFLED
from ealign_plugin.inference.evaluator import fingerprint
from ealign_plugin.metrics import METRICS, CaptionSet, register_metric
from tests.inference.factories import Oracle, Split, Validation, evaluate, sample


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """Both passes over two photos, and what was printed and written."""
    folder, printed = tmp_path_factory.mktemp("run"), io.StringIO()
    run = {"contexts": ["head", "refined"], "shuffled_images": True, "context_words": 8}
    model, split = Oracle(), Split(sample("a_0"), sample("b_0"))
    batches = split.batches(other_image=torch.ones(1, 3, 4, 4))
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr("ealign_plugin.metrics.builtin.find_java", lambda: "java")
        patch.setattr("ealign_plugin.metrics.builtin.score_meteor", lambda *_: 0.25)  # takes seconds
        one, records, log = evaluate(folder, model, split, batches, **run)
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    return one, model, records, log, folder, printed.getvalue(), lines


def test_every_sentence_is_judged_and_the_selected_one_is_read(evaluated):
    model, lines = evaluated[1], evaluated[-1]
    assert model.asked[0] == "Is this sentence about the photo? It rained. Answer:"
    assert len(model.asked) == 2 * 2 * 2  # sentences × photos × (own image, another's)
    by_context = {line["context"]: line for line in lines if line["key"] == "a_0"}
    assert by_context["head"]["context_sentences"] == [0]
    assert by_context["refined"]["context_text"] == "Maria Keller spoke in Oslo on 3 May."
    assert by_context["refined"]["selected"] == [
        {"index": 1, "score": 1.0, "text": "Maria Keller spoke in Oslo on 3 May."}
    ]
    assert by_context["refined"]["entities"] == ["Maria Keller", "Oslo", "3 May"]
    assert by_context["refined"]["invented"] == ["Bergen"]
    metrics = by_context["refined"]["metrics"]
    assert metrics["people_right"] == metrics["entity_precision"] == metrics["entity_recall"] == 1.0


def test_each_image_is_encoded_once_for_both_passes_and_all_contexts(evaluated):
    assert evaluated[1].images_encoded == 2 + 2


def test_figures_of_a_perfect_model(evaluated):
    log = evaluated[3]
    assert log["sentence_auc_hard"] is None or log["sentence_auc_hard"] == 1.0
    assert log["sentence_auc"] == log["sentence_ap"] == log["entity_list_f1"] == 1.0
    assert log["sentence_precision"] == log["sentence_recall"] == 1.0
    assert log["refined/people_right"] == log["refined/entity_f1"] == 1.0
    assert log["agg_metrics"] == log["refined/cider"]
    assert f"refined{SHUFFLED}/bleu4" in log


def test_the_list_of_names_is_measured_before_and_after_the_articles_filter(evaluated):
    one, log, printed = evaluated[0], evaluated[3], evaluated[5]
    # Maria Keller, Oslo and 3 May are right; Bergen stands in no article.
    assert (log["entity_list_raw_precision"], log["entity_list_raw_recall"]) == (0.75, 1.0)
    assert (log["entity_list_precision"], log["entity_list_recall"]) == (1.0, 1.0)
    assert one.report["selection"]["entity_list_raw_precision"] == 0.75
    assert (
        "names, as the model lists them: precision 0.750, recall 1.000, F1 0.857; without the 2 that no "
        "article tells: precision 1.000, recall 1.000, F1 1.000"
    ) in printed


def test_what_pass_two_reads_tells_whether_selection_or_writing_is_at_fault(evaluated):
    log = evaluated[3]
    assert log["refined/names_held"] == 1.0
    assert log["head/names_held"] == 0.0  # "It rained."


def test_predictions_and_report_are_written_whole_and_the_journal_is_gone(evaluated):
    _, _, records, _, folder, printed, lines = evaluated
    assert [(line["key"], line["context"]) for line in lines] == [
        (key, context) for key in ("a_0", "b_0") for context in ("head", "refined", f"refined{SHUFFLED}")
    ]
    assert len(records) == 2
    assert (folder / "report.txt").read_text() in printed
    assert sorted(file.name for file in folder.iterdir()) == ["predictions.jsonl", "report.txt"]


def test_with_java_meteor_has_a_column(evaluated):
    log, printed = evaluated[3], evaluated[5]
    assert log["refined/meteor"] == 0.25
    heading, _, *rows = [line for line in printed.splitlines() if line.startswith("|")]
    assert heading.endswith("| METEOR |") and all(row.endswith("|   25.0 |") for row in rows)


def test_without_java_meteor_is_left_out_and_said_so(evaluated, without_java, capsys):
    one, _, records, *_ = evaluated
    one.finish(records, "test")
    printed = capsys.readouterr().out
    assert "METEOR is left out" in printed and "| METEOR" not in printed


def test_what_a_context_is_measured_by_is_what_the_model_read_of_it(tmp_path, without_java, capsys):
    model, run = Oracle(), {"contexts": ["head", "none"], "context_words": 20}
    prompt = Wording().caption("It rained. Maria Keller spoke in Oslo on 3 May.").instruction
    # Whole; without all but a part of its first sentence; without a part of the name.
    for read, sentences, names_held in (
        ("It rained. Maria Keller spoke in Oslo on 3 May.", [0, 1], 1.0),
        ("ained. Maria Keller spoke in Oslo on 3 May.", [0, 1], 1.0),
        ("ria Keller spoke in Oslo on 3 May.", [1], 2 / 3),
    ):
        model.longest_prompt = len(prompt) - prompt.index(read)
        one, _, log = evaluate(tmp_path, model, Split(sample("a_0"), sample("b_0")), **run)
        line = json.loads((tmp_path / "predictions.jsonl").read_text().splitlines()[0])
        cut = read[0] != "I"
        assert (line["context_text"], line["context_sentences"], line["context_cut"]) == (
            read,
            sentences,
            cut,
        )
        assert log["head/names_held"] == pytest.approx(names_held)
        assert one.report["contexts"]["head"]["contexts_cut"] == log["head/contexts_cut"] == 2 * cut
        assert log["none/contexts_cut"] == 0  # a question alone has no context that could be cut
        said = "head: 2 of 2 contexts were too long for the model" in capsys.readouterr().out
        assert said == cut == ((tmp_path / "report.txt").read_text().count("were too long") == 1)


def test_validation_is_cheaper_than_the_test(tmp_path):
    model, split = Oracle(), Validation(sample())
    run = {"contexts": ["head", "refined"], "valid_contexts": ["head"], "shuffled_images": True}
    _, records, log = evaluate(tmp_path, model, split, **run)
    assert list(records[0]["captions"]) == ["head"]
    assert model.asked == []  # the head needs no pass 1
    assert "sentence_auc" not in log and log["head/meteor"] is None
    assert list(tmp_path.iterdir()) == []


def test_another_figure_may_pick_the_best_checkpoint(tmp_path):
    _, _, log = evaluate(tmp_path, Oracle(), Validation(sample()), agg_metric="people_right")
    assert log["agg_metrics"] == 1.0


def test_the_loss_of_held_out_captions_is_the_mean_over_photos_and_may_stand_alone(tmp_path):
    class Model(Oracle):
        read: list[str] = []

        def __call__(self, samples):
            self.read.append(samples["instruction"][0])
            assert samples["target"] == [one.caption for one in split.samples]
            return {f"loss_{i}": torch.tensor(1.0 + i) for i in range(len(samples["target"]))}

    split = Validation(sample("a_0"), sample("b_0"))
    run = {"valid_contexts": [], "caption_loss": ["none", "oracle"]}
    _, _, log = evaluate(tmp_path, model := Model(), split, **run)
    without, oracle = model.read
    assert without == Wording().caption("").instruction
    assert "Maria Keller spoke in Oslo on 3 May." in oracle
    assert log == {"agg_metrics": -1.5, "caption_loss/none": 1.5, "caption_loss/oracle": 1.5}


# Metrics of other packages


@pytest.fixture
def shouting():
    """A metric of another package: captions that are written in capitals."""

    @register_metric("shouting", heading="LOUD", note="LOUD: share of captions in capitals.")
    def shouting(captions: CaptionSet) -> float:
        return sum(caption.isupper() for caption in captions.captions) / len(captions.captions)

    yield
    METRICS.unregister("shouting")


def test_a_metric_of_another_package_is_in_metrics_table_and_report(shouting, without_java, tmp_path, capsys):
    split = Split(sample("a_0"), sample("b_0"))
    one, _, log = evaluate(tmp_path, Oracle(), split, contexts=["head", "refined"])
    assert log["head/shouting"] == log["refined/shouting"] == 0.0
    assert one.report["contexts"]["refined"]["shouting"] == 0.0
    report = (tmp_path / "report.txt").read_text()
    heading = next(line for line in report.splitlines() if line.startswith("| context"))
    assert heading.rstrip(" |").endswith("LOUD")
    assert "LOUD: share of captions in capitals." in report
    _, _, chosen = evaluate(tmp_path, Oracle(), split, contexts=["head"], metrics=["captions", "shouting"])
    assert chosen.keys() >= {"head/shouting", "head/cider"} and "head/entity_f1" not in chosen
    assert "| entity F1" not in (tmp_path / "report.txt").read_text()
    _, _, picked = evaluate(tmp_path, Oracle(), Validation(sample()), agg_metric="shouting")
    assert picked["agg_metrics"] == 0.0


# Interruptions, and photos that cannot be read


class Interrupted(Oracle):
    """Stops after so many photos."""

    def __init__(self, photos: int) -> None:
        super().__init__()
        self.left = photos

    def encode_images(self, images):
        self.left -= len(images)
        if self.left < 0:
            raise KeyboardInterrupt
        return super().encode_images(images)


def test_an_interrupted_test_continues_and_ends_in_the_same_file(tmp_path, without_java):
    split = Split(*(sample(f"{name}_0") for name in "abcde"))

    def test(model, torn=""):
        for journal in tmp_path.glob("evaluation-test/*"):
            journal.write_text(journal.read_text() + torn)
        evaluate(tmp_path, model, split, contexts=["head", "refined"])
        return (tmp_path / "predictions.jsonl").read_bytes()

    undisturbed = test(Oracle())
    (tmp_path / "predictions.jsonl").unlink()
    with pytest.raises(KeyboardInterrupt):
        test(Interrupted(3))  # a batch of two is whole, the second is not
    assert not (tmp_path / "predictions.jsonl").exists()
    again = Oracle()
    assert test(again, torn='[{"index": 2, "ke') == undisturbed
    assert again.images_encoded == 3


def test_records_of_other_weights_or_options_are_not_used_again(tmp_path, without_java, caplog):
    split = Split(*(sample(f"{name}_0") for name in "abc"))

    def test(model, **run):
        evaluate(tmp_path, model, split, contexts=["refined"], **run)

    with pytest.raises(KeyboardInterrupt):
        test(Interrupted(2))
    test(model := Oracle(), context_words=7)
    assert model.images_encoded == 3
    assert "of another evaluation" in caplog.text


def broken(split, count):
    for batch in split.batches(size=1):
        if batch["index"][0] < count:
            error = {"index": batch["index"][0], "key": batch["key"][0], "error": "sample 'a_0': no photo"}
            batch |= {"index": [], "key": [], "sample": [], "errors": [error]}
        yield batch


def test_a_photo_that_cannot_be_read_is_recorded_and_the_evaluation_goes_on(tmp_path, without_java, capsys):
    split = Split(sample("a_0"), sample("b_0"))
    one, _, _ = evaluate(tmp_path, Oracle(), split, broken(split, 1), contexts=["refined"])
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert [line["key"] for line in lines] == ["b_0", "a_0"]
    assert lines[1] == {"key": "a_0", "error": "sample 'a_0': no photo"}
    assert one.report["samples"] == one.report["skipped"] == 1
    assert "1 photo could not be read (not in the figures)" in capsys.readouterr().out


def test_too_many_broken_photos_stop_the_evaluation(tmp_path):
    split = Split(*(sample(f"s{i}_0") for i in range(30)))
    with pytest.raises(UserError, match="21 photos of 'test' could not be read, at most 5% may be"):
        evaluate(tmp_path, Oracle(), split, broken(split, 25), contexts=["refined"])


def test_the_fingerprint_tells_weights_apart():
    one, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    other.load_state_dict(one.state_dict())
    assert fingerprint(one.parameters()) == fingerprint(other.parameters())
    other.weight.data[0, 0] += 1e-6
    assert fingerprint(one.parameters()) != fingerprint(other.parameters())


def test_shuffled_images_need_a_data_set_that_gives_them(tmp_path):
    model = Oracle()
    with pytest.raises(UserError, match="other_image"):
        evaluate(tmp_path, model, Split(sample()), shuffled_images=True)
    assert model.images_encoded == 0


def test_an_empty_split_is_one_clear_error(tmp_path):
    with pytest.raises(UserError, match="split 'test': it holds no sample"):
        evaluate(tmp_path, Oracle(), Split())
