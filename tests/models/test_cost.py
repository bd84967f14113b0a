"""The estimate beside what is counted: parameters, FLOPs, what autograd keeps, and published sizes."""

from typing import Any

import pytest
import torch
import yaml
from lavis.common.registry import registry
from lavis.models import load_model
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ealign_plugin.errors import UserError
from ealign_plugin.models import InstructBlip
from ealign_plugin.models import llava as _registered  # noqa: F401
from ealign_plugin.models.cost.activations import activations
from ealign_plugin.models.cost.estimate import estimate
from ealign_plugin.models.cost.flops import flops
from ealign_plugin.models.cost.shapes import SHAPES, Reading, on_meta, parameters, reading_of, shape_of

GIB = 2**30
RECIPES = ["connector", "llm", "connector+llm", "lora", "all"]
ARCHS = ["ealign_instructblip", "ealign_llava"]
family = registry.get_model_class
ROWS = 3
TEXT = {
    "instruction": "The mayor of Oslo spoke on 3 May and the police closed two streets. " * 8,
    "question": "Who is in the photo? Name them all. " * 3,
    "target": "Ana Lopez speaks in Oslo. " * 6,
}


def micro_shape(arch: str) -> dict[str, Any]:
    with open(family(arch).PRETRAINED_MODEL_CONFIG_DICT["micro"], encoding="utf-8") as file:
        return shape_of(yaml.safe_load(file)["model"])


@pytest.fixture(scope="module")
def shape() -> dict[str, Any]:
    return micro_shape("ealign_instructblip")


@pytest.fixture(scope="module", params=[(arch, recipe) for arch in ARCHS for recipe in RECIPES], ids=" ".join)
def pair(request) -> tuple[Any, Any]:
    """The micro model, and its shape on the meta device, with the same parts trained."""
    arch, recipe = request.param
    torch.manual_seed(0)
    setting = {"trainable": recipe, "lora": {"r": 4}}
    real = load_model(arch, "micro").train()
    real.set_up(setting)
    return real, on_meta(family(arch), micro_shape(arch), **setting)


def batch(model: Any) -> dict[str, Any]:
    size = model.config.vision_config.image_size
    images = torch.randn(ROWS, 3, size, size, generator=torch.Generator().manual_seed(1))
    return {"image": images, **{name: [text] * ROWS for name, text in TEXT.items()}}


def reading(model: Any) -> Reading:
    return reading_of(
        model.config,
        question=len(model.ids([TEXT["question"]])[0]) + 1,
        prompt=len(model.before) + len(model.prompts([TEXT["instruction"]])[0]),
        target=len(model.targets([TEXT["target"]])[0]),
    )


def test_parameters_are_those_of_the_model(pair):
    real, meta = pair
    total, trained = parameters(meta)
    assert sum(total.values()) == sum(p.numel() for p in real.parameters())
    assert sum(trained.values()) == sum(p.numel() for p in real.parameters() if p.requires_grad) > 0
    vision = [getattr(real, name) for name in real.PARTS["vision"]]
    assert total["vision"] == sum(p.numel() for module in vision for p in module.parameters())
    assert all(p.is_meta for p in meta.parameters())


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


def kept(model: Any) -> int:
    """Bytes that autograd saves, each piece of memory once, without the parameters."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    pieces: dict[int, tuple[int, torch.Tensor]] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            pieces[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that no address comes twice
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        model(batch(model))
    return sum(size for size, _ in pieces.values())


def test_activations_are_what_autograd_keeps(pair):
    real, meta = pair
    assert activations(meta, reading(real), size=4) == pytest.approx(kept(real) / ROWS, rel=0.2)


def test_checkpointing_keeps_less(shape):
    meta = on_meta(InstructBlip, shape, trainable="all")
    read = Reading(patches=17, queries=8, question=10, prompt=400, target=20)
    whole = activations(meta, read, size=4)
    part = activations(meta, read, size=4, gradient_checkpointing=True)
    eager = activations(meta, read, size=4, eager=True)
    assert part < 0.6 * whole
    assert eager - whole == 3 * 4 * 2 * 4 * 428**2  # layers, bytes, before and after softmax, heads


# Published sizes, in 10⁹: Vicuna (LLaMA, arXiv 2302.13971), Flan-T5 (arXiv 2210.11416), EVA ViT-g and the
# Q-Former (BLIP-2, arXiv 2301.12597), CLIP (arXiv 2103.00020). transformers 5 ties the head of every T5.
EVA = {"vision": 0.986, "connector": 0.188}
CLIP = {"vision": 0.3035, "connector": 0.021}
PUBLISHED = {
    "Salesforce/instructblip-vicuna-7b": EVA | {"llm": 6.738},
    "Salesforce/instructblip-vicuna-13b": EVA | {"llm": 13.016, "connector": 0.19},
    "Salesforce/instructblip-flan-t5-xl": EVA | {"llm": 2.85},
    "Salesforce/instructblip-flan-t5-xxl": EVA | {"llm": 11.135},
    "llava-hf/llava-1.5-7b-hf": CLIP | {"llm": 6.739},
    "llava-hf/llava-1.5-13b-hf": CLIP | {"llm": 13.016, "connector": 0.0315},
}


def arch_of(source: str) -> str:
    return "ealign_llava" if "llava" in source else "ealign_instructblip"


@pytest.mark.parametrize("source", PUBLISHED)
def test_published_sizes(source):
    shape = shape_of({"arch": arch_of(source), "pretrained": source})
    total, _ = parameters(on_meta(family(arch_of(source)), shape))
    assert {part: count / 1e9 for part, count in total.items()} == pytest.approx(PUBLISHED[source], rel=0.025)


def test_every_type_that_is_downloaded_has_its_shape():
    shapes = yaml.safe_load(SHAPES.read_text(encoding="utf-8"))
    assert set(shapes) == set(PUBLISHED)
    for arch in ARCHS:
        for path in family(arch).PRETRAINED_MODEL_CONFIG_DICT.values():
            with open(path, encoding="utf-8") as file:
                section = yaml.safe_load(file)["model"]
            assert "text_config" in section or section["pretrained"] in shapes


@pytest.fixture(scope="module")
def vicuna() -> dict[str, Any]:
    return shape_of({"arch": "ealign_instructblip", "pretrained": "Salesforce/instructblip-vicuna-7b"})


READING = Reading(patches=257, queries=32, question=64, prompt=600, target=60)


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


def test_flops_of_a_7b_model(vicuna):
    """Twice the weights for each token, and attention; gradients of a frozen model cost that once more."""
    model = on_meta(InstructBlip, vicuna, trainable="connector", dtype="bf16", vision_dtype="bf16")
    found = flops(model, READING)
    tokens = 32 + 600 + 60
    llm = 2 * 6.476e9 * tokens + 32 * 4 * tokens**2 * 4096
    vision = 2 * 0.985e9 * 257 + 39 * 4 * 257**2 * 1408
    assert found["forward"] == pytest.approx(llm + vision, rel=0.02)
    assert found["backward"] == pytest.approx(llm, rel=0.06)


def test_a_folder_goes_before_what_is_published(tmp_path, shape):
    transformers = pytest.importorskip("transformers")
    config = {**shape, "num_query_tokens": 5}
    transformers.InstructBlipConfig(**config).save_pretrained(tmp_path)
    found = shape_of({"arch": "ealign_instructblip", "pretrained": str(tmp_path), "text_config": {}})
    assert found["num_query_tokens"] == 5


def test_an_unknown_hub_id_without_a_hub():
    with pytest.raises(UserError, match="model.pretrained: 'nobody/nothing'"):
        shape_of({"arch": "ealign_instructblip", "pretrained": "nobody/nothing"})


def test_tokens_of_an_encoder_decoder():
    """T5's encoder reads image and prompt, its decoder the target; cross-attention's keys what is encoded."""
    shape = shape_of({"arch": "ealign_instructblip", "pretrained": "Salesforce/instructblip-flan-t5-xl"})
    text = {"d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 4}
    shape["text_config"] = {**shape["text_config"], **text, "vocab_size": 1280}
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
