"""Weights from folders of transformers: they arrive, or what doesn't fit is refused and nothing changes."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from ealign_plugin.errors import UserError
from ealign_plugin.models.weights.hub import INDEX, shards
from ealign_plugin.models.weights.loading import load_weights_into
from tests.models.weights.factories import equal, randomised


def rewritten(folder: Path, change: Any) -> Path:
    """The weights of a folder in one file, after ``change(weights)``."""
    content: dict[str, torch.Tensor] = {}
    for path in shards(folder):
        content |= load_file(path)
        path.unlink()
    (folder / INDEX).unlink(missing_ok=True)
    save_file(change(content), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_folder_of_several_shards_fills_the_model(fresh, saved):
    load_weights_into(fresh, saved[0])
    assert equal(fresh, saved[1])


def test_filling_a_model_in_half_precision_keeps_its_precision(fresh, saved):
    load_weights_into(fresh.to(torch.bfloat16), saved[0])
    assert equal(fresh, {name: value.to(torch.bfloat16) for name, value in saved[1].items()})


def newer_names(content: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As a class with an inner ``model`` writes them: the head apart, the LLM without its own class."""
    renamed = {}
    for name, value in content.items():
        if name.startswith("language_model.lm_head."):
            renamed[name.removeprefix("language_model.")] = value
        else:
            renamed["model." + name.replace("language_model.model.", "language_model.")] = value
    return renamed


@pytest.mark.parametrize("tied", [True, False])
def test_names_of_newer_versions_are_understood(fresh, saved, folder, tied):
    head = "language_model.lm_head.weight"

    def change(content):
        if not tied:  # a file may spell tied weights out
            content[head] = content["language_model.model.embed_tokens.weight"].clone()
        return newer_names(content)

    load_weights_into(fresh, rewritten(folder, change))
    assert equal(fresh, saved[1])


def test_buffers_that_older_versions_saved_are_passed_over(fresh, saved, folder):
    extra = {
        "qformer.embeddings.position_ids": torch.arange(4),
        "language_model.model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4),
    }
    load_weights_into(fresh, rewritten(folder, lambda content: content | extra))
    assert equal(fresh, saved[1])


def test_a_language_model_given_apart(fresh, saved, tmp_path):
    """From a folder of the causal LM alone; the rest keeps what it holds."""
    before = {name: value.clone() for name, value in fresh.vision_model.state_dict().items()}
    llm = randomised(transformers.AutoModelForCausalLM.from_config(fresh.config.text_config), seed=5)
    llm.save_pretrained(tmp_path / "llm")
    load_weights_into(fresh.language_model, tmp_path / "llm")
    assert equal(fresh.language_model, llm.state_dict())
    assert equal(fresh.vision_model, before)


def test_a_head_of_its_own_where_the_model_ties_it(fresh, saved, folder):
    """Flan-T5's under transformers 5, which ties every T5."""
    head = torch.randn(1920, 128)
    rewritten(folder, lambda content: content | {"language_model.lm_head.weight": head})
    load_weights_into(fresh, folder)
    assert equal(fresh, saved[1] | {"language_model.lm_head.weight": head})


def test_parts_left_out_keep_what_they_hold(fresh, saved, folder):
    without_llm = {n: v for n, v in saved[1].items() if not n.startswith("language_model.")}
    before = {name: value.clone() for name, value in fresh.language_model.state_dict().items()}
    rewritten(folder, lambda content: {name: content[name] for name in without_llm})
    load_weights_into(fresh, folder, without=["language_model"])
    assert equal(fresh, without_llm | {f"language_model.{name}": value for name, value in before.items()})


def test_a_vocabulary_with_tokens_added(fresh, saved, folder):
    name = "language_model.model.embed_tokens.weight"
    rewritten(folder, lambda content: content | {name: content[name][:-2].clone()})
    last = fresh.state_dict()[name][-2:].clone()
    with pytest.raises(UserError, match=r"embed_tokens.weight \[1918, 128\] where \[1920, 128\] is expected"):
        load_weights_into(fresh, folder, added_tokens=1)
    load_weights_into(fresh, folder, added_tokens=2)
    assert torch.equal(fresh.state_dict()[name], torch.cat([saved[1][name][:-2], last]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: {n: v for n, v in c.items() if n != "query_tokens"}, "1 missing, 0 unknown, 0 of another"),
        (lambda c: c | {"qformer.strange": torch.ones(1)}, "0 missing, 1 unknown.*qformer.strange"),
        (
            lambda c: c | {"query_tokens": c["query_tokens"][:, :4].clone()},
            r"0 missing, 0 unknown, 1 of another shape.*query_tokens \[1, 4, 128\] where \[1, 8, 128\]",
        ),
    ],
)
def test_weights_of_another_model_are_refused_and_change_nothing(fresh, folder, change, message):
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    with pytest.raises(UserError, match=message) as error:
        load_weights_into(fresh, rewritten(folder, change))
    assert str(folder) in str(error.value) and "model.model_type" in str(error.value)
    assert equal(fresh, before)


def spoil_index(folder):
    (folder / INDEX).write_text('{"weight_map": {"query_tokens": "../model.safetensors"}}')


def cut_shard(folder):
    path = shards(folder)[-1]
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: shards(f)[-1].unlink(), "which is missing there"),
        (lambda f: (f / INDEX).write_text("[1]"), "no index of weights"),
        (spoil_index, "'../model.safetensors', which is missing there"),
        (cut_shard, "it is no safetensors file"),
    ],
)
def test_a_spoilt_folder_is_told_in_one_line(fresh, folder, spoil, message):
    spoil(folder)
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    with pytest.raises(UserError, match=message) as error:
        load_weights_into(fresh, folder)
    assert "\n" not in str(error.value)
    assert equal(fresh, before)


def test_pickles_are_never_read(fresh, tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(UserError, match="only pickled weights found.*save_pretrained"):
        load_weights_into(fresh, tmp_path)
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(UserError, match="no model.safetensors"):
        load_weights_into(fresh, tmp_path)
