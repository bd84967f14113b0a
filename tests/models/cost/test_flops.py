"""FLOPs of a step beside those that torch counts."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ealign_plugin.models import InstructBlip
from ealign_plugin.models.cost.flops import flops
from ealign_plugin.models.cost.shapes import Reading, on_meta, shape_of
from tests.models.cost.factories import READING, ROWS, batch, reading


def test_flops_are_those_that_torch_counts(pair):
    real, meta = pair
    with sdpa_kernel(SDPBackend.MATH):  # fused kernels are not counted on every device
        with FlopCounterMode(display=False) as forward:
            loss = real(batch(real))["loss"]
        with FlopCounterMode(display=False) as backward:
            loss.backward()
    found = flops(meta, reading(real))
    assert found["forward"] == pytest.approx(forward.get_total_flops() / ROWS, rel=0.02)
    assert found["backward"] == pytest.approx(backward.get_total_flops() / ROWS, rel=0.02)


def test_checkpointing_computes_the_blocks_of_the_language_model_again(pair):
    real, meta = pair
    found = flops(meta, reading(real), gradient_checkpointing=True)
    assert 0.3 * found["forward"] < found["recomputed"] < found["forward"]


def test_flops_of_a_7b_model(vicuna):
    """Twice the weights for each token, and attention; gradients of a frozen model cost that once more."""
    model = on_meta(InstructBlip, vicuna, trainable="connector", dtype="bf16", vision_dtype="bf16")
    found = flops(model, READING)
    tokens = 32 + 600 + 60
    llm = 2 * 6.476e9 * tokens + 32 * 4 * tokens**2 * 4096
    vision = 2 * 0.985e9 * 257 + 39 * 4 * 257**2 * 1408
    assert found["forward"] == pytest.approx(llm + vision, rel=0.02)
    assert found["backward"] == pytest.approx(llm, rel=0.06)


def test_tokens_of_an_encoder_decoder():
    """T5's encoder reads image and prompt, its decoder the target; cross-attention's keys what is encoded."""
    shape = shape_of({"arch": "ealign_instructblip", "pretrained": "Salesforce/instructblip-flan-t5-xl"})
    text = {"d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 4}
    shape["text_config"] = {**shape["text_config"], **text, "vocab_size": 1920}
    model = on_meta(InstructBlip, shape)
    found = flops(model, READING)
    real = type(model.language_model)(model.config.text_config)
    embeds = torch.randn(1, 632, 64)
    with FlopCounterMode(display=False) as counter:
        real(inputs_embeds=embeds, decoder_input_ids=torch.ones(1, 60, dtype=torch.long), use_cache=False)
    without = Reading(patches=257, queries=32, question=64, prompt=0, target=0)
    rest = flops(model, without)["forward"]
    image_in_encoder = (
        2 * 2 * (4 * 64 * 64 + 3 * 64 * 96) * 32 + 2 * 4 * 32**2 * 64 + 3 * 2 * 2 * 64 * 64 * 32
    )
    assert found["forward"] - rest + image_in_encoder == pytest.approx(counter.get_total_flops(), rel=0.02)
