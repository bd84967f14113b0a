"""A captioner from what a run left on disk, wherever in it the path leads."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lavis.common.registry import registry

import ealign_plugin
from ealign_plugin.errors import UserError
from ealign_plugin.inference.loading import load_plugins
from ealign_plugin.inference.settings import CaptioningSettings
from tests.inference.factories import ARTICLES, RUN, from_checkpoint, save
from tests.messages import message_of


def test_templates_processor_options_and_context_are_the_runs(captioner, run_folder, ner):
    assert captioner.wording.templates.caption == "Write a caption. {context}"
    assert captioner.image_processor.mean == [0.1, 0.2, 0.3]
    assert captioner.image_processor.decode_size == 128  # of the data set's default YAML
    assert (captioner.options.context_words, captioner.options.max_len) == (30, 8)
    assert captioner.options.min_len == 1  # of the task
    assert captioner.context == "refined"
    assert captioner.options.threshold is None and captioner.options.num_beams == 2
    assert not captioner.model.training


@pytest.mark.parametrize(
    "place",
    [
        *("checkpoints", "checkpoints/best", "checkpoints/last", "checkpoints/iter_000400"),
        "checkpoints/best/weights.safetensors",
    ],
)
def test_any_place_in_the_run_names_its_weights(captioner, run_folder, photos, ner, place):
    again = from_checkpoint(run_folder / place, ner, threshold=None)
    assert again(photos[2], ARTICLES[1]) == captioner(photos[2], ARTICLES[1])


def test_of_a_run_the_best_weights_are_taken(captioner, run_folder, tmp_path, photos, ner):
    run = shutil.copytree(run_folder, tmp_path / "run", symlinks=True)
    model = from_checkpoint(run, ner).model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= -1.5
    save(run, model, iters=800, metric=0.4)
    expected = captioner(photos[2], ARTICLES[1])
    assert from_checkpoint(run, ner, threshold=None)(photos[2], ARTICLES[1]) == expected
    last = from_checkpoint(run / "checkpoints" / "last", ner, threshold=None)
    assert last(photos[2], ARTICLES[1]) != expected
    save(run, model, iters=1200, metric=0.6)
    assert from_checkpoint(run, ner, threshold=None)(photos[2], ARTICLES[1]) != expected


def test_damaged_weights_are_refused_and_in_a_run_passed_over(captioner, run_folder, tmp_path, photos, ner):
    run = shutil.copytree(run_folder, tmp_path / "run", symlinks=True)
    save(run, captioner.model, iters=800, metric=0.9)
    weights = run / "checkpoints" / "best" / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    message = message_of(from_checkpoint, run / "checkpoints" / "best", ner)
    assert "iter_000800/weights.safetensors: its SHA-256 is not the one in manifest.json" in message
    again = from_checkpoint(run, ner, threshold=None)
    assert again(photos[2], ARTICLES[1]) == captioner(photos[2], ARTICLES[1])
    weights.unlink()
    message = message_of(from_checkpoint, run / "checkpoints" / "iter_000800", ner)
    assert "iter_000800/weights.safetensors: the file is missing; use another checkpoint" in message
    # Whoever captions needs nothing of the optimiser.
    (run / "checkpoints" / "iter_000400" / "optimizer.safetensors").unlink()
    assert from_checkpoint(run, ner).context == "refined"


def test_a_run_without_a_checkpoint_is_refused(run_folder, tmp_path, ner):
    shutil.copy(run_folder / "config.yaml", tmp_path)
    assert "no whole checkpoint in it; give a run's folder" in message_of(from_checkpoint, tmp_path, ner)
    assert "no such file or folder" in message_of(from_checkpoint, tmp_path / "none", ner)


def test_a_bare_checkpoint_needs_a_config(run_folder, tmp_path, ner):
    bare = tmp_path / "bare.safetensors"
    shutil.copy(run_folder / "checkpoints" / "best" / "weights.safetensors", bare)
    assert "name the run's YAML by config=" in message_of(from_checkpoint, bare, ner)
    made = from_checkpoint(bare, ner, config=run_folder / "user.yaml")
    assert made.options.context_words == 30
    shutil.copy(run_folder / "config.yaml", tmp_path)
    assert from_checkpoint(bare, ner).context == "refined"
    bare.write_text("no weights")
    message = message_of(from_checkpoint, bare, ner, config=run_folder / "user.yaml")
    assert "it is no safetensors file" in message


def test_options_replace_the_runs_and_unknown_ones_are_refused(run_folder, ner):
    options = from_checkpoint(run_folder, ner, num_beams=1, context_words=7).options
    assert (options.num_beams, options.context_words, options.max_len) == (1, 7, 8)
    message = message_of(from_checkpoint, run_folder, ner, num_beam=1)
    assert "unknown option 'num_beam'; did you mean 'num_beams'?" in message
    assert "num_beams" in message_of(from_checkpoint, run_folder, ner, num_beams=0)
    message = message_of(ealign_plugin.NewsCaptioner.from_checkpoint, run_folder, device="gpu", ner=ner)
    assert "device: 'gpu' found" in message


def test_data_sets_that_ask_in_other_words_are_refused(run_folder, tmp_path, ner):
    text = RUN.replace("run:\n", "  ealign_news: {templates: {caption: '{context} Now?'}}\nrun:\n")
    (tmp_path / "two.yaml").write_text(text)
    message = message_of(from_checkpoint, run_folder, ner, config=tmp_path / "two.yaml")
    assert "ealign_micronews and ealign_news have unlike templates" in message
    (tmp_path / "two.yaml").write_text(text.replace("{context} Now?", "Write a caption. {context}"))
    assert from_checkpoint(run_folder, ner, config=tmp_path / "two.yaml").options.max_len == 8


def test_a_data_set_without_an_image_processor_is_refused(run_folder, tmp_path, ner):
    text = RUN[: RUN.index("datasets:")] + "datasets: {coco_caption: {}}\n" + RUN[RUN.index("run:") :]
    (tmp_path / "run.yaml").write_text(text)
    message = message_of(from_checkpoint, run_folder, ner, config=tmp_path / "run.yaml")
    assert "datasets.coco_caption.vis_processor.eval: missing" in message


@pytest.mark.parametrize("before", [None, "the host's"])
def test_laviss_registry_is_left_as_it_was(run_folder, ner, before, monkeypatch):
    state = {} if before is None else {"configuration": before}
    monkeypatch.setitem(registry.mapping, "state", state)
    names = {name: dict(values) for name, values in registry.mapping.items()}
    from_checkpoint(run_folder, ner)
    assert registry.mapping == names
    message_of(from_checkpoint, run_folder, ner, config=run_folder / "none.yaml")
    assert registry.mapping == names


def test_a_fresh_process_needs_no_data_and_makes_none(run_folder, run_python, tmp_path):
    """The only test with spaCy's model, that of the run's config."""
    (tmp_path / "cache").mkdir()
    code = f"""
import sys, ealign_plugin
assert "torch" not in sys.modules and "lavis" not in sys.modules
captioner = ealign_plugin.NewsCaptioner.from_checkpoint({str(run_folder)!r}, device="cpu")
assert "lavis" not in sys.modules
from PIL import Image
result = captioner(Image.new("RGB", (80, 70)), "Ana Ruiz met Mr. Brandt in Oslo. It rained.", scores=True)
print(captioner.ner.name, len(result.sentences), bool(result.caption))
try:
    ealign_plugin.NoSuchName
except AttributeError as error:
    print(error)
"""
    done = run_python("-c", code, env={"EALIGN_CACHE": str(tmp_path / "cache")})
    assert done.stdout.splitlines() == [
        "en_core_web_sm 2 True",
        "module 'ealign_plugin' has no attribute 'NoSuchName'",
    ], done.stderr
    assert list((tmp_path / "cache").iterdir()) == []


def test_the_shards_name_the_spacy_model_where_they_are_here(run_folder, tmp_path):
    index = '{"schema": 1, "splits": {}, "ner": {"name": "xx_no_such_model", "version": "1"}}'
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "index.json").write_text(index)
    section = f"ealign_news:\n    build_info: {{images: {{storage: {tmp_path / 'shards'}}}}}"
    (tmp_path / "run.yaml").write_text(RUN.replace("ealign_micronews:", section))
    path = tmp_path / "run.yaml"
    message = message_of(ealign_plugin.NewsCaptioner.from_checkpoint, run_folder, config=path, device="cpu")
    assert "'xx_no_such_model'" in message


# Which modules a checkpoint may have imported


SETTINGS = CaptioningSettings(model={"arch": "ealign_instructblip", "model_type": "micro"})


@pytest.fixture
def stranger(tmp_path, monkeypatch) -> Path:
    """A module ``stranger_of_captions`` on the path, which leaves a file when it is imported."""
    trace = tmp_path / "imported"
    (tmp_path / "stranger_of_captions.py").write_text(f"open({str(trace)!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "stranger_of_captions", raising=False)
    return trace


def test_a_module_is_not_imported_on_a_files_word_alone(stranger):
    settings = replace(SETTINGS, plugins=("stranger_of_captions",))
    with pytest.raises(UserError, match="captioning.*'stranger_of_captions'.*plugins=.*where you trust it"):
        load_plugins(settings, Path("captioning"))
    assert not stranger.exists()


def test_a_module_that_the_user_names_is_imported(stranger):
    load_plugins(replace(SETTINGS, plugins=("stranger_of_captions",)), Path("x"), ["stranger_of_captions"])
    assert stranger.exists()


def test_a_module_that_is_imported_already_and_one_of_an_installed_plugin_may_be_named():
    load_plugins(replace(SETTINGS, plugins=("json", "ealign_plugin.news")), Path("x"))


def test_a_module_that_is_missing_is_one_message():
    with pytest.raises(UserError, match="no_such_module"):
        load_plugins(SETTINGS, Path("x"), ["no_such_module"])
