"""The settings beside the weights, with which a checkpoint or an exported folder captions by itself."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from ealign_plugin.alignment.prompts import Templates
from ealign_plugin.errors import UserError
from ealign_plugin.host.config import load_config
from ealign_plugin.inference.evaluator import Evaluator
from ealign_plugin.inference.options import EvaluationOptions, InferenceOptions
from ealign_plugin.inference.run_settings import (
    checkpoint_files,
    exported_files,
    plain_sections,
    read_run_config,
    settings_of_config,
)
from ealign_plugin.inference.settings import NAME, CaptioningSettings
from ealign_plugin.models.weights.export import export
from ealign_plugin.news import NewsSample
from tests.inference.factories import ARTICLES, RUN, Split, from_checkpoint
from tests.messages import message_of

SETTINGS = CaptioningSettings(
    model={"arch": "ealign_llava", "model_type": "micro", "pretrained": "a/folder", "max_txt_len": 64},
    templates=Templates(caption="{context} Now?", separator="\n"),
    context="supplemented",
    options=InferenceOptions(
        context_tokens=90, usual_context="around_image", usual_words=40, threshold=None, num_beams=2
    ),
    ner={"name": "en_core_web_md", "version": "3.8.0"},
    image_processor={"name": "ealign_image", "image_size": 32},
    text_processor={"name": "ealign_text"},
    plugins=("a_package",),
)

CONFIG = {
    "model": {"arch": "ealign_llava", "model_type": "micro"},
    "datasets": {"ealign_micronews": {"templates": {"no": "nope"}}},
    "run": {"contexts": ["oracle", "head", "supplemented"], "num_beams": 1, "plugins": ["a_package"]},
}


def test_settings_of_older_checkpoints_have_the_head_as_their_usual_context():
    record = SETTINGS.to_json()
    old = {key: value for key, value in record["inference"].items() if not key.startswith("usual_")}
    read = CaptioningSettings.from_json({**record, "inference": old}).options
    assert (read.usual_context, read.usual_words) == ("head", None)


def test_what_is_written_is_read_again(tmp_path):
    path = tmp_path / NAME
    path.write_bytes(SETTINGS.to_bytes())
    assert CaptioningSettings.read(path) == SETTINGS
    assert CaptioningSettings.from_json(json.loads(json.dumps(SETTINGS.to_json()))) == SETTINGS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 2 found, 1 expected; update ealign-plugin"),
        ({"model": None}, "model: found NoneType, expected a mapping"),
        ({"context": 3}, "context: found int, expected text"),
        ({"inference": {"num_beam": 1}}, "inference: unknown option 'num_beam'; did you mean 'num_beams'"),
        ({"inference": {"num_beams": 0}}, "run.num_beams: found 0, expected at least 1"),
        (
            {"inference": {"num_beams": "2"}},
            "run.num_beams: found '2', expected a whole number of at least 1",
        ),
        ({"templates": {"caption": "Now?"}}, "templates.caption: {context} was expected once"),
        ({"ner": {}}, "a value is missing or of the wrong type"),
    ],
)
def test_a_broken_file_is_one_clear_error(tmp_path, change, message):
    path = tmp_path / NAME
    path.write_text(json.dumps({**SETTINGS.to_json(), **change}))
    with pytest.raises(UserError) as error:
        CaptioningSettings.read(path)
    assert str(error.value).startswith(str(path)) and message in str(error.value)
    path.write_text("{")
    with pytest.raises(UserError, match="it is no JSON"):
        CaptioningSettings.read(path)


def test_an_exported_model_has_all_its_weights_in_its_folder():
    model = SETTINGS.for_exported_folder().model
    assert "pretrained" not in model and model["load_finetuned"] is False and model["trainable"] is None
    assert (model["arch"], model["max_txt_len"]) == ("ealign_llava", 64)


def test_the_config_of_a_run_makes_them():
    settings = settings_of_config(CONFIG, "run.yaml", {"name": "en_core_web_md", "version": "3.8.0"})
    assert settings.templates.no == "nope"
    assert settings.context == "head"  # the first that needs no reference caption; refined is none of them
    assert settings.options.num_beams == 1 and settings.options.max_len == InferenceOptions().max_len
    assert settings.ner == {"name": "en_core_web_md", "version": "3.8.0"}
    assert settings.image_processor == {"name": "ealign_image", "image_size": 64, "decode_margin": 2}
    assert settings.plugins == ("a_package",)
    assert settings_of_config(CONFIG, "run.yaml").ner["name"] == "en_core_web_sm"  # of the world


def test_a_checkpoint_of_a_run_that_asks_in_two_ways_carries_none(caplog):
    datasets = {"ealign_micronews": {}, "other": {"templates": {"no": "nope"}}}
    assert checkpoint_files({**CONFIG, "datasets": datasets}) == {}
    assert "ealign_micronews and other have unlike templates" in caplog.text
    assert list(checkpoint_files(CONFIG)) == [NAME]


def test_the_yaml_of_a_run_is_read_with_its_bases(tmp_path: Path):
    (tmp_path / "base.yaml").write_text(json.dumps(CONFIG))
    (tmp_path / "run.yaml").write_text("base: base.yaml\nrun: {num_beams: 3, max_len: '${run.num_beams}'}")
    assert read_run_config(tmp_path / "run.yaml")["run"]["max_len"] == 3
    (tmp_path / "run.yaml").write_text("base: base.yaml\nrun: {max_len: '${run.nothing}'}")
    with pytest.raises(UserError, match="run.yaml"):
        read_run_config(tmp_path / "run.yaml")


def test_a_checkpoint_alone_is_enough(captioner, checkpoint, photos, ner):
    alone = from_checkpoint(checkpoint, ner, threshold=None)
    assert (alone.options, alone.wording.templates) == (captioner.options, captioner.wording.templates)
    assert alone.context == "refined" and alone.image_processor.mean == [0.1, 0.2, 0.3]
    for photo, article in zip(photos, ARTICLES, strict=True):
        assert alone(photo, article) == captioner(photo, article)


def test_a_checkpoint_alone_captions_as_the_evaluation_does(checkpoint, photos, ner, tmp_path):
    alone = from_checkpoint(checkpoint, ner, threshold=None)
    samples = [
        NewsSample(key=str(i), split="test", caption="Ana.", paragraphs=(text,))
        for i, text in enumerate(ARTICLES)
    ]
    split = Split(*ner.annotate(samples))
    split.wording, split.ner = alone.wording, {"name": ner.name, "version": ner.version}
    batch = next(iter(split.batches(size=len(samples))))
    batch["image"] = torch.stack([alone.image_processor(photo) for photo in photos])
    evaluator = Evaluator(alone.options, EvaluationOptions(contexts=("head", "refined")), ner)
    evaluator.start(split, tmp_path)
    records = evaluator.evaluate_batch(alone.model, batch)
    for record, photo, sample in zip(records, photos, split.samples, strict=True):
        result = alone(photo, sample)
        assert result.caption == record["captions"]["refined"]["caption"]
        assert result.context == record["captions"]["refined"]["context_text"]
        assert list(result.entities) == record["first"]["entities"]
        assert list(result.hallucinated_names) == record["first"]["invented"]
        assert str(alone(photo, sample, "head")) == record["captions"]["head"]["caption"]


def test_a_checkpoint_alone_captions_in_a_process_without_lavis(captioner, checkpoint, photos, run_python):
    code = f"""
import sys, spacy, ealign_plugin
from PIL import Image
from ealign_plugin.entities import NamedEntityRecognizer
nlp = spacy.blank("en")
nlp.add_pipe("sentencizer")
ner = NamedEntityRecognizer(nlp, "blank", "0")
make = ealign_plugin.NewsCaptioner.from_checkpoint
captioner = make({str(checkpoint)!r}, device="cpu", ner=ner, threshold=None)
print(captioner(Image.new("RGB", (80, 70), "red"), {ARTICLES[0]!r}))
assert "lavis" not in sys.modules
"""
    done = run_python("-c", code)
    assert done.stdout.strip() == str(captioner(photos[0], ARTICLES[0])), done.stderr


def test_a_config_replaces_the_settings_beside_the_weights(checkpoint, run_folder, tmp_path, ner):
    text = RUN.replace("context_words: 30", "context_words: 9")
    (tmp_path / "run.yaml").write_text(text)
    assert from_checkpoint(checkpoint, ner, config=tmp_path / "run.yaml").options.context_words == 9
    assert from_checkpoint(checkpoint, ner).options.context_words == 30


def test_an_exported_folder_is_enough(captioner, checkpoint, run_folder, tmp_path, photos, ner):
    files = exported_files(load_config(run_folder / "user.yaml").config, "user.yaml", None)
    image = captioner.image_processor
    export(captioner.model, tmp_path / "model", mean=image.mean, std=image.std, files=files)
    exported = from_checkpoint(tmp_path / "model", ner, threshold=None)
    for photo, article in zip(photos, ARTICLES, strict=True):
        assert str(exported(photo, article)) == str(captioner(photo, article))
    (tmp_path / "model" / "captioning.json").unlink()
    message = message_of(from_checkpoint, tmp_path / "model", ner)
    assert "an exported folder without captioning.json" in message


# A threshold that is chosen

CHOICE = {"threshold": 0.83, "figure": "entity_f1", "candidates": []}


def test_a_chosen_threshold_takes_the_place_of_auto_and_of_nothing_else(tmp_path):
    auto = settings_of_config({**CONFIG, "run": {"threshold": "auto"}}, "run.yaml")
    chosen = auto.with_threshold(CHOICE)
    assert (chosen.options.threshold, chosen.threshold_choice) == (0.83, CHOICE)
    assert CaptioningSettings.from_json(json.loads(chosen.to_bytes())) == chosen
    assert auto.with_threshold(None) is auto and SETTINGS.with_threshold(CHOICE) is SETTINGS
    assert "threshold_choice" not in SETTINGS.to_json()
    (tmp_path / NAME).write_text(json.dumps({**SETTINGS.to_json(), "threshold_choice": [0.8]}))
    with pytest.raises(UserError, match="threshold_choice: found list, expected a mapping"):
        CaptioningSettings.read(tmp_path / NAME)


def test_captioner_and_export_take_the_threshold_that_lies_beside_the_weights(
    checkpoint, run_folder, tmp_path, ner, captioner, caplog
):
    def written(settings: CaptioningSettings) -> None:
        (folder / NAME).write_bytes(settings.to_bytes())

    (tmp_path / "auto.yaml").write_text(RUN + "  threshold: auto\n")
    config = load_config(tmp_path / "auto.yaml").config
    folder = Path(shutil.copytree(checkpoint, tmp_path / "iter_000400"))
    auto = settings_of_config(plain_sections(config), "auto.yaml")
    for settings, threshold in ((auto, "auto"), (auto.with_threshold(CHOICE), 0.83)):
        written(settings)
        (content,) = exported_files(config, "auto.yaml", folder / "weights.safetensors").values()
        assert CaptioningSettings.from_json(json.loads(content)).options.threshold == threshold
    assert caplog.text.count("run.threshold: auto found, and none was chosen") == 1
    for options in ({}, {"config": tmp_path / "auto.yaml"}):
        assert from_checkpoint(folder, ner, **options).options.threshold == 0.83
    written(auto)
    for options in ({}, {"config": tmp_path / "auto.yaml"}):
        message = message_of(from_checkpoint, folder, ner, **options)
        assert message.startswith("run.threshold: auto found, and none was chosen for these weights; give")
        assert from_checkpoint(folder, ner, threshold=0.4, **options).options.threshold == 0.4
