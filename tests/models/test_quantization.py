"""What weights of 4 bits need before a language model is quantised."""

import torch

from ealign_plugin.models.quantization import quantize_language_model
from tests.messages import message_of
from tests.models.factories import without


def test_four_bits_need_a_frozen_language_model_a_gpu_and_bitsandbytes(new_model, monkeypatch):
    model = new_model()
    quantize = quantize_language_model
    assert message_of(quantize, model, "int3", "lora") == (
        "model.quantize: 'int3' found; 'nf4' or null expected"
    )
    assert "weights of 4 bits cannot be trained" in message_of(quantize, model, "nf4", "connector+llm")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "which needs a GPU" in message_of(quantize, model, "nf4", "lora")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    without(monkeypatch, "bitsandbytes")
    assert "pip install 'ealign-plugin[quantize]'" in message_of(quantize, model, "nf4", "lora")
