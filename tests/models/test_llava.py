"""LLaVA beside transformers' own class and processor on the same folder."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from lavis.models import load_model
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, LlavaForConditionalGeneration

from ealign_plugin.models import Llava
from ealign_plugin.models.trainable import part_of
from ealign_plugin.models.weights.export import export
from ealign_plugin.registered.processors import MEAN, STD, ImageProcessor
from tests.messages import message_of
from tests.models.factories import outputs_of_generate
from tests.models.llava_files import PROMPT, llama_tokenizer, processor_of, shape

PLAIN = {"dtype": "fp32", "vision_dtype": "fp32", "max_txt_len": 400, "max_output_txt_len": 64}


def randomised(model: Any) -> Any:
    """Of one spread in all versions, and large enough that mistakes show."""
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        parameter.data = parameter.data + torch.randn(parameter.shape, generator=generator) * 0.2
    return model.eval()


@pytest.fixture(scope="session")
def llava_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A tiny LLaVA with random weights and its processor, written by transformers."""

    @cache
    def write(kind: str, strategy: str = "default") -> Path:
        folder = tmp_path_factory.mktemp(kind)
        layers = {"full": [-3, -2], "default": -2}[strategy]
        config = shape(kind, vision_feature_select_strategy=strategy, vision_feature_layer=layers)
        randomised(LlavaForConditionalGeneration(config)).save_pretrained(folder)
        processor_of(kind).save_pretrained(folder)
        return folder

    return write


def load(folder: Path, **changes: Any) -> Llava:
    """The 7B type's config with another folder, in float32."""
    config = OmegaConf.load(Llava.default_config_path("llava1.5_7b")).model
    return Llava.from_config(OmegaConf.merge(config, PLAIN, {"pretrained": str(folder)}, changes)).eval()


class Pair(NamedTuple):
    """Ours, and transformers' with its processor, from one folder."""

    folder: Path
    ours: Llava
    hf: Any
    processor: Any

    def inputs(self, samples: dict[str, Any], row: int) -> Any:
        """As a user of transformers makes them; the picture is given as pixels."""
        text = PROMPT.format(samples["instruction"][row])
        inputs = self.processor(images=Image.new("RGB", (32, 32)), text=text, return_tensors="pt")
        inputs["pixel_values"] = samples["image"][row : row + 1]
        return inputs

    def outputs(self, samples: dict[str, Any], row: int, target: list[int]) -> Any:
        inputs = self.inputs(samples, row)
        prompt, target_ids = inputs["input_ids"], torch.tensor([target], dtype=torch.long)
        ids = torch.cat([prompt, target_ids], dim=1)
        labels = torch.cat([prompt.new_full(prompt.shape, -100), target_ids], dim=1)
        rest = {"pixel_values": inputs["pixel_values"], "attention_mask": torch.ones_like(ids)}
        return self.hf(input_ids=ids, labels=labels, **rest)


@pytest.fixture(scope="module", params=["prepend", "first"])
def pair(request, llava_folder: Callable[..., Path]) -> Iterator[Pair]:
    folder = llava_folder(request.param)
    hf = LlavaForConditionalGeneration.from_pretrained(folder).eval()
    yield Pair(folder, load(folder), hf, AutoProcessor.from_pretrained(folder))


@pytest.fixture
def samples(samples) -> dict[str, Any]:
    return {**samples, "image": samples["image"][:, :, :32, :32].contiguous()}


# Beside transformers


def test_logits_of_a_padded_batch_are_those_of_each_example_alone(pair, samples):
    ours = load(pair.folder, batching="padded")
    seen = []
    hook = ours.language_model.model.register_forward_hook(
        lambda *call: seen.append(call[-1].last_hidden_state)
    )
    with hook, torch.no_grad():
        ours(samples)
        (logits,) = map(ours.language_model.lm_head, seen)
        lengths = []
        for row, logit in enumerate(logits):  # longest first, which is their order
            (target,) = ours.targets([samples["target"][row]])
            wanted = pair.outputs(samples, row, target).logits[0]
            lengths.append(len(wanted))
            torch.testing.assert_close(logit[: len(wanted)], wanted, rtol=0, atol=1e-5)
    assert len(set(lengths)) == len(lengths)


def test_the_loss_of_an_example_and_its_gradients(pair, samples, rows_of):
    names = [name for name, _ in pair.hf.named_modules() if name.endswith("multi_modal_projector")]
    parts = (pair.ours.multi_modal_projector, pair.hf.get_submodule(*names))
    for row in range(4):
        (target,) = pair.ours.targets([samples["target"][row]])
        losses = (pair.ours(rows_of(samples, [row]))["loss"], pair.outputs(samples, row, target).loss)
        torch.testing.assert_close(*losses, rtol=0, atol=1e-5)
        found, wanted = (
            torch.autograd.grad(loss, list(part.parameters()))
            for loss, part in zip(losses, parts, strict=True)
        )
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
        assert max(gradient.abs().max() for gradient in wanted) > 1e-3


def test_all_tokens_of_two_layers_where_the_config_says_so(llava_folder, samples):
    folder = llava_folder("prepend", "full")
    ours, hf = load(folder), LlavaForConditionalGeneration.from_pretrained(folder).eval()
    (prompt,), (target,) = ours.prompts(["Who?"]), ours.targets(["Ana Lopez"])
    ids = torch.tensor([[*ours.before, *[hf.config.image_token_index] * 5, *prompt, *target]])
    labels = torch.where(torch.arange(ids.shape[1]) < ids.shape[1] - len(target), -100, ids)
    batch = {"image": samples["image"][:1], "instruction": ["Who?"], "target": ["Ana Lopez"]}
    with torch.no_grad():
        wanted = hf(
            input_ids=ids, pixel_values=batch["image"], attention_mask=torch.ones_like(ids), labels=labels
        )
        assert ours(batch)["loss"].item() == pytest.approx(wanted.loss.item(), abs=1e-5)


@pytest.mark.parametrize("beams", [1, 5])
def test_generated_tokens(pair, samples, beams):
    tokenizer = pair.ours.tokenizer

    def bare(row: list[int]) -> list[int]:
        return [token for token in row if token not in (tokenizer.eos_token_id, tokenizer.pad_token_id)]

    with outputs_of_generate(pair.ours) as outputs:
        answers = pair.ours.generate(samples, num_beams=beams, max_length=12)
    written = [row for output in outputs for row in output.tolist()]
    options = {"num_beams": beams, "do_sample": False, "max_new_tokens": 12, "min_new_tokens": 1}
    wanted = []
    for row in range(4):
        inputs = pair.inputs(samples, row)
        output = pair.hf.generate(**inputs, **options)
        wanted.append(bare(output[0, inputs["input_ids"].shape[1] :].tolist()))
    assert sorted(map(bare, written)) == sorted(wanted)
    assert [answer.split() for answer in answers] == [
        tokenizer.decode(row, skip_special_tokens=True).split() for row in wanted
    ]
    assert len({tuple(row) for row in wanted}) > 1


@pytest.mark.parametrize("answers", [["yes", "no"], ["Ana Lopez", "Jun Park", ""]])
@pytest.mark.parametrize("batch_tokens", [1, 16_384])
def test_scores_are_the_answers_log_probabilities(pair, samples, answers, batch_tokens):
    prefix, candidates = "Does it tell what the photo shows?", ["", " The mayor left.", " Oslo"]
    wanted = torch.zeros(len(candidates), len(answers))
    for i, candidate in enumerate(candidates):
        asked = {"image": samples["image"][:1], "instruction": [prefix + candidate]}
        for j, ids in enumerate(pair.ours.ids(answers)):
            with torch.no_grad():
                log = pair.outputs(asked, 0, ids).logits[0].log_softmax(-1)
            wanted[i, j] = sum(log[len(log) - len(ids) - 1 + k, token] for k, token in enumerate(ids))
    features = pair.ours.encode_images(samples["image"][:1])
    scores = pair.ours.score(features, prefix, candidates, answers, batch_tokens=batch_tokens)
    torch.testing.assert_close(scores, wanted, rtol=0, atol=1e-4)
    assert scores.unique().numel() > 3


# Batches


@pytest.mark.parametrize("reduction", ["token", "example"])
def test_three_ways_to_run_a_batch_are_one_arithmetic(pair, samples, reduction):
    ways = [{"batching": name} for name in ("packed", "padded", "groups")]
    found = []
    for way in [*ways, {"batching": "packed", "max_tokens": 150}]:
        model = load(
            pair.folder, trainable="all", loss_reduction=reduction, gradient_checkpointing=False, **way
        )
        output = model(samples)
        output["loss"].backward()
        found.append((output, {name: p.grad for name, p in model.named_parameters() if p.requires_grad}))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=0, atol=1e-5)
    assert all(gradient.any() for gradient in found[0][1].values())


def test_the_loss_of_an_example_does_not_depend_on_its_neighbours(pair, samples, rows_of):
    together = pair.ours(samples)
    for row, task in enumerate(samples["task"]):
        alone = pair.ours(rows_of(samples, [row]))["loss"]
        assert alone.item() == pytest.approx(together[f"loss_{task}"].item(), abs=1e-5)


def test_an_image_is_read_once_whatever_is_asked_about_it(pair, samples):
    samples["image"][1:] = samples["image"][0]
    samples["question"] = ["Who?", "Where?", "Why?", "When?"]
    plain = pair.ours(samples)
    sizes: list[int] = []
    with pair.ours.multi_modal_projector.register_forward_hook(lambda *call: sizes.append(len(call[-1]))):
        keyed = pair.ours({**samples, "key": ["p"] * 4})
    assert sizes == [1]
    torch.testing.assert_close(keyed, plain, rtol=0, atol=1e-5)
    torch.testing.assert_close(pair.ours({**samples, "question": None}), plain, rtol=0, atol=1e-5)


# What is trained


@pytest.mark.parametrize(
    ("trainable", "parts"),
    [
        ("connector", {"connector"}),
        ("connector+llm", {"connector", "llm"}),
        ("lora", {"connector", "lora"}),
        ("all", {"vision", "connector", "llm"}),
    ],
)
def test_steps_change_exactly_what_the_config_names(llava_folder, samples, trainable, parts):
    if trainable == "lora":
        pytest.importorskip("peft")
    torch.manual_seed(0)
    model = load(llava_folder("first"), trainable=trainable, lora={"dropout": 0.0}).train()
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.0
    )
    for _ in range(2):  # LoRA's A moves after its B has
        optimizer.zero_grad()
        model(samples)["loss"].backward()
        optimizer.step()
    changed = {name for name, value in model.named_parameters() if not value.equal(before[name])}
    named = {name for name in before if part_of(model, name) in parts and not unread(name)}
    assert changed == named and named
    assert {name for name, value in model.named_parameters() if value.requires_grad} == named


def unread(name: str) -> bool:
    """The image tokens are what the second layer of three writes."""
    return name.startswith("vision_tower.") and (".layers.2." in name or "post_layernorm." in name)


def test_a_frozen_image_encoder_runs_without_gradients(llava_folder, samples):
    model = load(llava_folder("first"), trainable="connector").train()
    assert not model.vision_tower.training and model.language_model.training
    assert not model.encode_images(samples["image"]).requires_grad
    assert load(llava_folder("first"), trainable="all").encode_images(samples["image"]).requires_grad


# Weights


def test_a_folder_s_weights_arrive(pair):
    wanted = load_file(pair.folder / "model.safetensors")
    assert sorted(value.shape for value in pair.ours.state_dict().values()) == sorted(
        value.shape for value in wanted.values()
    )
    theirs = {value.double().sum().item() for value in wanted.values()}
    assert {value.double().sum().item() for value in pair.ours.state_dict().values()} == theirs


def test_an_export_gives_the_same_caption_and_the_same_model(llava_folder, tmp_path):
    model = load(llava_folder("first"))
    randomised(model)
    export(model, tmp_path / "out", mean=MEAN, std=STD)
    picture = Image.effect_noise((50, 40), 80).convert("RGB")
    image = ImageProcessor(32)(picture)[None]
    question = {"image": image, "instruction": ["Write the caption of the photo."]}
    (wanted,) = model.generate(question, num_beams=1, max_length=12, min_length=12)
    hf = LlavaForConditionalGeneration.from_pretrained(tmp_path / "out").eval()
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    inputs = processor(images=picture, text=PROMPT.format(*question["instruction"]), return_tensors="pt")
    output = hf.generate(**inputs, do_sample=False, max_new_tokens=12, min_new_tokens=12)
    start = inputs["input_ids"].shape[1]
    (caption,) = processor.batch_decode(output[:, start:], skip_special_tokens=True)
    assert caption.strip() == wanted  # what random weights write may end with a tab
    again = load(tmp_path / "out")
    torch.testing.assert_close(again.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_a_checkpoint_completes_the_folder(llava_folder, samples, tmp_path):
    """Of all that is trained; what nobody reads is not in it."""
    model = load(llava_folder("first"), trainable="all")
    randomised(model)
    state = model.trainable_state()
    assert state and not any(map(unread, state))
    save_file(state, tmp_path / "best.safetensors")
    finetuned = {"load_finetuned": True, "finetuned": str(tmp_path / "best.safetensors")}
    other = load(llava_folder("first"), trainable="all", **finetuned)
    torch.testing.assert_close(other(samples), model(samples), rtol=0, atol=0)


# LAVIS, and bad configs


def test_the_micro_type_learns(samples):
    """Four examples by heart, from random weights."""
    torch.manual_seed(0)
    model = load_model("ealign_llava", "micro")
    assert 1e6 < sum(value.numel() for value in model.parameters()) < 3e6
    samples["image"] = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = model(samples)["loss"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
    assert model.eval().generate(samples, num_beams=1, max_length=20) == samples["target"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_txt_len": 600}, "model.max_txt_len: 600 found; with "),
        ({"max_txt_len": 2}, "model.max_txt_len: 2 found; more than "),
        ({"pretrained": "/nowhere/at/all"}, "model.pretrained: '/nowhere/at/all': no such folder"),
    ],
)
def test_values_that_would_fail_later_are_refused_at_once(llava_folder, changes, message):
    assert message_of(load, llava_folder("first"), **changes).startswith(message)


def test_folders_of_other_models_are_refused(hub_folder, llava_folder, tmp_path):
    assert "model_type 'instructblip' found, llava expected" in message_of(load, hub_folder("llama"))
    config = shape("first").to_dict()
    config["vision_config"] = {"model_type": "siglip_vision_model", "image_size": 32, "patch_size": 16}
    message = message_of(Llava, config=config, tokenizer=llama_tokenizer("first"), max_txt_len=400)
    assert message.startswith("model.vision_config.model_type: 'siglip_vision_model' found")
    config = shape("first").to_dict()
    config["text_config"]["vocab_size"] = 300
    message = message_of(Llava, config=config, tokenizer=llama_tokenizer("first"), max_txt_len=400)
    assert message.startswith("model.text_config.vocab_size: 300 found, at least ")
