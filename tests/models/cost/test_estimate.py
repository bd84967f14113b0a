"""Memory of published models under each way to train them, beside what is known of them."""

import pytest

from ealign_plugin.models import InstructBlip
from ealign_plugin.models.cost.estimate import estimate
from ealign_plugin.models.cost.shapes import on_meta
from tests.models.cost.factories import READING

GIB = 2**30


def test_a_7b_model_that_is_trained_whole_needs_18_bytes_a_parameter(vicuna):
    """And 2 for each frozen one: its type is bf16."""
    model = on_meta(InstructBlip, vicuna, trainable="connector+llm", dtype="bf16", vision_dtype="bf16")
    found = estimate(model, READING, batch=1, amp=True)
    state = sum(found.memory[name] for name in ("weights", "copies", "gradients", "optimiser"))
    learnt = found.trained["connector"] + found.trained["llm"]
    assert state == 18 * learnt + 2 * found.parameters["vision"]
    assert state / GIB == pytest.approx(118, abs=1)
    assert found.memory["buckets"] == 0


def test_a_frozen_7b_model_in_16_and_in_4_bits(vicuna):
    model = on_meta(InstructBlip, vicuna, trainable="lora", dtype="bf16", vision_dtype="bf16")
    half = estimate(model, READING, batch=1, amp=True).memory["weights"]
    small = estimate(model, READING, batch=1, amp=True, quantized=True).memory["weights"]
    assert half / GIB == pytest.approx((2 * 7.72e9 + 4 * 0.229e9) / GIB, rel=0.01)
    assert (half - small) / GIB == pytest.approx((2 - 0.5625) * 6.476e9 / GIB, rel=0.01)


def test_ddp_and_sharded(vicuna):
    model = on_meta(InstructBlip, vicuna, trainable="connector+llm", dtype="bf16", vision_dtype="bf16")
    one, ddp, sharded = (
        estimate(model, READING, batch=1, amp=True, gpus=gpus, sharded=sharded).memory
        for gpus, sharded in ((1, False), (8, False), (8, True))
    )
    held = ("weights", "copies", "gradients", "optimiser")
    assert [ddp[name] for name in held] == [one[name] for name in held]
    assert ddp["buckets"] == ddp["gradients"]
    assert all(sharded[name] == -(-one[name] // 8) for name in held)
    assert sharded["gathered"] == 2 * 4 * (4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096)
    assert one["activations"] == ddp["activations"] == sharded["activations"]
