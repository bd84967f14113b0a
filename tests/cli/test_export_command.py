"""``ealign export`` and ``ealign estimate`` as a user meets them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from lavis.models import load_model
from safetensors.torch import save_file
from transformers import InstructBlipForConditionalGeneration, InstructBlipProcessor
from typer.testing import CliRunner

from ealign_plugin.cli.app import app as cli
from ealign_plugin.cli.estimate import estimate
from ealign_plugin.cli.export import export
from ealign_plugin.errors import UserError

CONFIG = """
model:
  arch: ealign_instructblip
  model_type: micro
datasets:
  ealign_micronews:
    vis_processor:
      eval: {name: ealign_image, image_size: 64, mean: [0.1, 0.2, 0.3], std: [0.4, 0.5, 0.6]}
run:
  task: ealign_news_captioning
  runner: ealign_runner
  max_iters: 1
  iters_per_inner_epoch: 1
  batch_size_train: 4
  batch_size_eval: 4
  init_lr: 1.0e-3
"""


@pytest.fixture
def config(tmp_path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG)
    return path


def run(*words: Any) -> Any:
    """The command's result; a UserError is its ``exception``, as `ealign_plugin.cli.app` receives it."""
    app = typer.Typer()
    app.command()(export)
    app.command()(estimate)
    return CliRunner().invoke(app, [str(word) for word in words])


def refused(*words: Any) -> str:
    result = run(*words)
    assert isinstance(result.exception, UserError), result.output
    return str(result.exception)


def test_export_writes_what_transformers_reads(config, tmp_path):
    torch.manual_seed(5)
    model = load_model("ealign_instructblip", "micro")
    save_file(dict(model.trainable_state()), tmp_path / "best.safetensors")
    out = tmp_path / "deep" / "out"
    result = run("export", "--cfg-path", config, "--checkpoint", tmp_path / "best.safetensors", "--out", out)
    assert result.exit_code == 0, result.output
    assert str(out) in result.output
    plain = InstructBlipForConditionalGeneration.from_pretrained(out)
    assert torch.equal(plain.query_tokens, model.query_tokens)
    processor = InstructBlipProcessor.from_pretrained(out).image_processor
    assert list(processor.image_mean) == [0.1, 0.2, 0.3] and list(processor.image_std) == [0.4, 0.5, 0.6]


def test_export_refuses_before_it_works(config, tmp_path):
    (tmp_path / "there").mkdir()
    assert "exists already" in refused("export", "--cfg-path", config, "--out", tmp_path / "there")
    words = ("export", "--cfg-path", config, "--out", tmp_path / "out")
    assert "no such file" in refused(*words, "--checkpoint", tmp_path / "x.safetensors")
    assert "has no LoRA" in refused(*words, "--keep-lora")
    assert "no such file" in refused("export", "--cfg-path", tmp_path / "x.yaml", "--out", tmp_path / "out")
    assert "model.max_txt_le" in refused(*words, "--options", "model.max_txt_le=3")
    assert not (tmp_path / "out").exists()


def test_two_data_sets_that_normalise_differently_are_refused(config, tmp_path):
    text = CONFIG.replace("run:\n", "  ealign_news:\n    build_info: {images: {storage: x}}\nrun:\n")
    config.write_text(text)
    message = refused("export", "--cfg-path", config, "--out", tmp_path / "out")
    assert "ealign_micronews and ealign_news" in message and "unlike mean or std" in message


def test_estimate_of_the_micro_model(config):
    result = run("estimate", "--cfg-path", config)
    assert result.exit_code == 0, result.output
    for word in ("vision", "connector", "llm", "activations", "TFLOPs", "4 examples on one GPU"):
        assert word in result.output


def figures(*words: Any) -> dict[str, Any]:
    result = run("estimate", *words, "--json")
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.output)


def test_estimate_as_json(config):
    found = figures("--cfg-path", config, "--target-tokens", 20)
    real = load_model("ealign_instructblip", "micro")
    assert found["parameters"]["total"] == sum(p.numel() for p in real.parameters())
    assert found["memory"]["optimiser"] == 8 * found["trained"]["total"]
    assert found["reading"] == {
        "patches": 17,
        "queries": 8,
        "question": 64,
        "prompt": 512,
        "target": 20,
    }
    assert (found["batch"], found["gpus"], found["sharded"]) == (4, 1, False)


def test_options_of_the_run_change_the_estimate(config):
    """The paper's model, without its weights and without a hub."""
    words = ("--cfg-path", config, "--options", "model.model_type=vicuna7b")
    connector = figures(*words)
    whole = figures(*words, "model.trainable=connector+llm", "run.amp=true")  # as lavis.train has it
    shared = figures(*words, "--options", "model.trainable=connector+llm", "--gpus", 8, "--sharded")
    assert connector["parameters"]["llm"] == pytest.approx(6.74e9, rel=0.001)
    assert connector["trained"]["llm"] == 0 < whole["trained"]["llm"]
    assert connector["memory"]["copies"] == 0 < whole["memory"]["copies"]
    assert connector["flops"]["recomputed"] > 0
    assert shared["memory"]["optimiser"] == -(-whole["memory"]["optimiser"] // 8)


def test_a_context_longer_than_the_language_model_reads(config):
    words = ("--options", "model.model_type=vicuna7b", "--options", "model.max_txt_len=4000")
    assert "max_txt_len" in refused("estimate", "--cfg-path", config, *words)


def test_a_model_of_lavis_is_none_of_ours(config):
    text = CONFIG.replace("ealign_instructblip", "blip_caption").replace("micro\n", "base_coco\n")
    config.write_text(text)
    assert "model.arch: 'blip_caption' found" in refused("estimate", "--cfg-path", config)


def test_estimate_needs_a_batch_size(config):
    config.write_text(CONFIG.replace("  batch_size_train: 4\n", ""))
    assert "batch_size_train" in refused("estimate", "--cfg-path", config)


def test_both_are_registered():
    names = {command.callback.__name__ for command in cli.registered_commands}
    assert {"export", "estimate"} <= names
