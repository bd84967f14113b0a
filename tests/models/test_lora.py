"""What `lora` relies on in peft, and huggingface_hub and bitsandbytes by the arguments that are passed."""

import inspect
from typing import Any

import pytest
import torch
from torch import nn

from ealign_plugin.models.lora import (
    LoraOptions,
    is_lora,
    lora_layers,
    mark_as_4bit,
    put_lora_in,
    state_without_lora,
    write_adapter,
)

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
