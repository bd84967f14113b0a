"""LoRA: its options, where it is put in, and what it relies on in peft, bitsandbytes and huggingface_hub."""

import inspect
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from ealign_plugin.models.lora import (
    LLAMA_TARGETS,
    T5_TARGETS,
    LoraOptions,
    is_lora,
    lora_layers,
    lora_options,
    mark_as_4bit,
    put_lora_in,
    state_without_lora,
    write_adapter,
)
from ealign_plugin.models.trainable import part_of, set_trainable, trainable_names
from tests.messages import message_of
from tests.models.factories import without

OPTIONS = LoraOptions(targets=("q_proj",), r=2, alpha=4, dropout=0.0)


class Block(nn.Module):
    """A language model of two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.o_proj = nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.o_proj(self.q_proj(x))


@pytest.fixture
def adapted() -> Block:
    """With LoRA in one of its layers, as after some training."""
    pytest.importorskip("peft")
    torch.manual_seed(0)
    block = Block()
    put_lora_in(block, OPTIONS)
    for name, parameter in block.named_parameters():
        if is_lora(name):
            parameter.data.normal_()
    return block


def test_names_that_peft_gives(adapted):
    assert set(dict(adapted.named_parameters())) == {
        "q_proj.base_layer.weight",
        "q_proj.lora_A.default.weight",
        "q_proj.lora_B.default.weight",
        "o_proj.weight",
    }
    assert list(lora_layers(adapted)) == ["q_proj"]
    assert list(adapted.peft_config) == ["default"]


def test_without_lora_the_names_are_the_plain_ones_and_merged_weights_compute_the_same(adapted):
    x = torch.randn(3, 6)
    wanted = adapted(x)
    plain = Block()
    plain.load_state_dict(state_without_lora(adapted, merge=True))
    torch.testing.assert_close(plain(x), wanted)
    plain.load_state_dict(state_without_lora(adapted, merge=False))
    assert not torch.allclose(plain(x), wanted)
    assert torch.equal(adapted(x), wanted)  # merging left the model as it was


def test_peft_reads_the_adapter_that_is_written(adapted, tmp_path):
    from peft import PeftModel

    x = torch.randn(3, 6)
    write_adapter(adapted, lora_layers(adapted), {"q_proj.weight": "q_proj.weight"}, tmp_path)
    plain = Block()
    plain.load_state_dict(state_without_lora(adapted, merge=False))
    torch.testing.assert_close(PeftModel.from_pretrained(plain, tmp_path)(x), adapted(x))


def test_peft_asks_for_the_mark_of_4_bits():
    peft_lora = pytest.importorskip("peft.tuners.lora.model")
    block = Block()
    mark_as_4bit(block)
    assert block.is_loaded_in_4bit is True
    assert "is_loaded_in_4bit" in inspect.getsource(peft_lora)


def arguments_of(function: Any) -> set[str]:
    return set(inspect.signature(function).parameters)


def test_huggingface_hub_takes_what_is_passed():
    from huggingface_hub import get_safetensors_metadata, snapshot_download

    assert {"repo_id", "revision", "allow_patterns"} <= arguments_of(snapshot_download)
    assert {"repo_id", "revision"} <= arguments_of(get_safetensors_metadata)


def test_bitsandbytes_takes_what_is_passed():
    bitsandbytes = pytest.importorskip("bitsandbytes")
    linear = arguments_of(bitsandbytes.nn.Linear4bit)
    assert {"input_features", "output_features", "bias", "compute_dtype", "quant_type"} <= linear
    assert {"data", "requires_grad", "quant_type"} <= arguments_of(bitsandbytes.nn.Params4bit.__new__)


# What is trained


def test_the_output_stays_the_same_when_lora_is_put_in(new_model, samples):
    pytest.importorskip("peft")
    model = new_model().eval()
    loss, answers = model(samples)["loss"], model.generate(samples, num_beams=2, max_length=8)
    names = set(model.state_dict())
    set_trainable(model, "lora")
    model.eval()
    assert model(samples)["loss"] == loss
    assert model.generate(samples, num_beams=2, max_length=8) == answers
    # Around it, every name of the language model would have changed.
    renamed = names - set(model.state_dict())
    assert renamed == {name for name in names if name.removesuffix(".weight").endswith(LLAMA_TARGETS)}


def test_lora_s_options_reach_the_layers(new_model):
    pytest.importorskip("peft")
    model = new_model()
    options = LoraOptions(targets=("q_proj", "up_proj"), r=3, alpha=6, dropout=0.25)
    assert set_trainable(model, "vision+lora", options).lora == options
    adapters = [name for name in trainable_names(model) if ".lora_" in name]
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in adapters} == {"q_proj", "up_proj"}
    layer = model.language_model.model.layers[0].self_attn.q_proj
    assert layer.lora_A["default"].weight.shape == (3, 128)
    assert layer.scaling == {"default": 2.0}
    assert layer.lora_dropout["default"].p == 0.25
    assert {part_of(model, name) for name in trainable_names(model)} == {"vision", "lora"}


def test_adapters_of_half_precision_weights_are_float32(new_model):
    pytest.importorskip("peft")
    model = new_model()
    model.language_model.to(torch.bfloat16)
    set_trainable(model, "lora")
    types = {"lora_" in name: p.dtype for name, p in model.language_model.named_parameters()}
    assert types == {True: torch.float32, False: torch.bfloat16}


# LoRA's options


def test_the_defaults_are_those_of_later_work():
    assert lora_options(None) == lora_options({}) == LoraOptions(targets=None, r=16, alpha=16, dropout=0.05)
    config = OmegaConf.create({"r": 8, "targets": ["q_proj", "q_proj"]})
    assert lora_options(config) == LoraOptions(targets=("q_proj",), r=8)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"rank": 4}, "model.lora: unknown option 'rank'; expected one of alpha, dropout, r, targets"),
        ({"dropuot": 0}, "did you mean 'dropout'?"),
        ({"r": 0}, "model.lora.r: found 0, expected at least 1"),
        ({"r": 2.0}, "model.lora.r: found 2.0, expected a whole number of at least 1"),
        ({"r": True}, "model.lora.r: found True, expected a whole number of at least 1"),
        ({"alpha": 0}, "model.lora.alpha: found 0, expected above 0"),
        ({"alpha": "16"}, "model.lora.alpha: found '16', expected a number above 0"),
        ({"alpha": float("nan")}, "model.lora.alpha: found nan"),
        ({"dropout": 1}, "model.lora.dropout: found 1, expected at least 0 and below 1"),
        ({"dropout": None}, "model.lora.dropout: found null"),
        ({"targets": "q_proj"}, "model.lora.targets: 'q_proj' found; a list of names of linear layers"),
        ({"targets": []}, "model.lora.targets: [] found"),
        ({"targets": 3}, "model.lora.targets: 3 found"),
        (16, "model.lora: 16 found; options expected, such as {r: 16, alpha: 16}"),
        ({"targets": ["q_proj", 3]}, "model.lora.targets: ['q_proj', 3] found"),
    ],
)
def test_options_out_of_range(config, message):
    assert message in message_of(lora_options, config)


@pytest.mark.parametrize("number", [8, 8.0])
def test_an_integer_is_a_number_too(number):
    assert lora_options({"alpha": number, "dropout": 0}) == LoraOptions(alpha=8, dropout=0)


def test_a_target_that_names_no_layer(new_model):
    pytest.importorskip("peft")
    model = new_model()
    message = message_of(set_trainable, model, "lora", LoraOptions(targets=("q_proj", "qproj")))
    assert message.startswith(
        "model.lora.targets: unknown linear layer of the language model (LlamaForCausalLM) 'qproj'; did you "
        "mean "
    )
    layers = "down_proj, gate_proj, k_proj, lm_head, o_proj, q_proj, up_proj, v_proj"
    assert message.endswith(f"? Expected one of {layers}")
    assert not any(".lora_" in name for name in model.state_dict())
    assert len(trainable_names(model)) == len(list(model.parameters()))


def test_t5_has_targets_of_its_own(new_model):
    pytest.importorskip("peft")
    from transformers import T5Config, T5ForConditionalGeneration

    model = new_model()
    shape = {"d_model": 16, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2, "vocab_size": 32}
    model.language_model = T5ForConditionalGeneration(T5Config(**shape, feed_forward_proj="gated-gelu"))
    assert set_trainable(model, "lora").lora == LoraOptions(targets=T5_TARGETS)
    adapted = {n.split(".lora_")[0].rpartition(".")[2] for n in model.state_dict() if ".lora_" in n}
    assert adapted == set(T5_TARGETS)


def test_without_peft_only_lora_fails(new_model, monkeypatch):
    without(monkeypatch, "peft")
    set_trainable(new_model(), "connector")
    message = message_of(set_trainable, new_model(), "lora")
    assert "needs the package peft, which is missing; pip install 'ealign-plugin[lora]'" in message
