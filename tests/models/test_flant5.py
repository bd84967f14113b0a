"""InstructBLIP from a folder of transformers, beside transformers' own class and processor on that folder.

With a LLaMA and with a T5: the Q-Former reads with its own tokenizer, the language model with its own.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import save_file
from transformers import InstructBlipForConditionalGeneration, InstructBlipProcessor

from ealign_plugin.errors import UserError
from ealign_plugin.models import InstructBlip
from ealign_plugin.models.batching import Tokens
from ealign_plugin.models.forwards import target_logits
from ealign_plugin.models.image_tokens import image_tokens_of
from ealign_plugin.models.meta import give_memory
from ealign_plugin.models.tokenizers import frame_of
from tests.models.factories import outputs_of_generate

KINDS = ("llama", "t5")
TYPES = {"llama": "vicuna7b", "t5": "flant5xl"}
PLAIN = {"dtype": "fp32", "vision_dtype": "fp32", "max_txt_len": 160}


def load(folder: Path, kind: str, **changes: Any) -> InstructBlip:
    """The type's config with another folder, in float32."""
    config = OmegaConf.load(InstructBlip.default_config_path(TYPES[kind])).model
    return InstructBlip.from_config(
        OmegaConf.merge(config, PLAIN, {"pretrained": str(folder)}, changes)
    ).eval()


class Pair(NamedTuple):
    """Ours, reading as InstructBLIP was trained, and transformers' with its processor."""

    kind: str
    ours: InstructBlip
    hf: Any
    processor: Any

    def inputs(self, samples: dict[str, Any], row: int) -> Any:
        """As a user of transformers makes them; the picture is given as pixels."""
        picture = Image.new("RGB", (32, 32))
        inputs = self.processor(images=picture, text=samples["instruction"][row], return_tensors="pt")
        inputs["pixel_values"] = samples["image"][row : row + 1]
        return inputs

    def target(self, samples: dict[str, Any], row: int) -> torch.Tensor:
        """[1, T], with the token that ends it."""
        (ids,) = self.ours.targets([samples["target"][row]])
        return torch.tensor([ids])

    @torch.no_grad()
    def outputs(self, samples: dict[str, Any], row: int) -> Any:
        inputs, target = self.inputs(samples, row), self.target(samples, row)
        if self.kind == "t5":
            return self.hf(**inputs, labels=target)
        prompt = inputs["input_ids"]
        inputs["input_ids"] = torch.cat([prompt, target], dim=1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        return self.hf(**inputs, labels=torch.cat([prompt.new_full(prompt.shape, -100), target], dim=1))


@pytest.fixture(scope="module", params=KINDS)
def pair(request, hub_folder: Callable[[str], Path]) -> Iterator[Pair]:
    folder = hub_folder(request.param)
    yield Pair(
        request.param,
        load(folder, request.param, qformer_text="instruction"),
        InstructBlipForConditionalGeneration.from_pretrained(folder).eval(),
        InstructBlipProcessor.from_pretrained(folder),
    )


@pytest.fixture
def samples(samples) -> dict[str, Any]:
    return {**samples, "image": samples["image"][:, :, :32, :32].contiguous()}


# Beside transformers


def test_texts_become_the_processor_s_tokens(pair, samples):
    for row, instruction in enumerate(samples["instruction"]):
        inputs = pair.inputs(samples, row)
        assert inputs["input_ids"][0, 4:].tolist() == pair.ours.prompts([instruction])[0]
        (question,) = pair.ours.questions([instruction])
        assert inputs["qformer_input_ids"][0].tolist() == question.prompt


def test_logits_of_a_batch_are_those_of_each_example_alone(pair, samples):
    """Packed for the LLaMA, padded for the T5."""
    texts = zip(pair.ours.prompts(samples["instruction"]), pair.ours.targets(samples["target"]), strict=True)
    with torch.no_grad():
        images = image_tokens_of(pair.ours, samples)
        logits, _, owner = target_logits(pair.ours, images, [Tokens(*ids) for ids in texts])
    for row in range(4):
        wanted = pair.outputs(samples, row).logits[0]
        if pair.kind == "llama":  # the logits of all tokens
            wanted = wanted[-pair.target(samples, row).shape[1] - 1 : -1]
        torch.testing.assert_close(logits[owner == row], wanted, rtol=0, atol=1e-5)


def test_the_loss_of_an_example(pair, samples, rows_of):
    for row in range(4):
        loss = pair.ours(rows_of(samples, [row]))["loss"]
        assert loss.item() == pytest.approx(pair.outputs(samples, row).loss.item(), abs=1e-5)


@pytest.mark.parametrize("beams", [1, 5])
def test_generated_tokens(pair, samples, beams):
    tokenizer = pair.ours.tokenizer
    with outputs_of_generate(pair.ours) as outputs:
        pair.ours.generate(samples, num_beams=beams, max_length=12)
    written = [row for output in outputs for row in output.tolist()]

    def bare(row: list[int]) -> list[int]:
        return [token for token in row if token not in tokenizer.all_special_ids]

    wanted = []
    for row in range(4):
        inputs = pair.inputs(samples, row)
        output = pair.hf.generate(
            **inputs, num_beams=beams, do_sample=False, max_new_tokens=12, min_new_tokens=1
        )
        start = inputs["input_ids"].shape[1] if pair.kind == "llama" else 0
        wanted.append(bare(output[0, start:].tolist()))
    assert sorted(map(bare, written)) == sorted(wanted)
    assert len({tuple(row) for row in wanted}) > 1


@pytest.mark.parametrize("answers", [["yes", "no"], ["Ana Lopez", "Jun Park", ""]])
@pytest.mark.parametrize("reads", ["question", "instruction"])
def test_scores_are_the_answers_log_probabilities(pair, samples, monkeypatch, answers, reads):
    monkeypatch.setattr(pair.ours, "reads", reads)
    image, candidates = samples["image"][:1], [" The mayor left.", " Two streets."]
    features = pair.ours.encode_images(image)
    scores = pair.ours.score(features, "Is it so?", candidates, answers, batch_tokens=90)
    for i, candidate in enumerate(candidates):
        for j, ids in enumerate(pair.ours.ids(answers)):
            example = {"image": image, "instruction": ["Is it so?" + candidate], "target": [""]}
            inputs = pair.inputs(example, 0)
            if reads == "question":
                question = pair.inputs({**example, "instruction": ["Is it so?"]}, 0)
                inputs |= {name: question[name] for name in ("qformer_input_ids", "qformer_attention_mask")}
            if not ids:
                assert scores[i, j] == 0
                continue
            target = torch.tensor([ids])
            with torch.no_grad():
                if pair.kind == "t5":
                    logits = pair.hf(**inputs, labels=target).logits[0]
                else:
                    inputs["input_ids"] = torch.cat([inputs["input_ids"], target], dim=1)
                    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
                    logits = pair.hf(**inputs).logits[0, -len(ids) - 1 : -1]
            wanted = logits.log_softmax(-1).gather(1, target.T).sum()
            assert scores[i, j].item() == pytest.approx(wanted.item(), abs=1e-4)


# On its own


def test_a_batch_gives_what_its_members_give_alone(pair, samples, rows_of):
    together = pair.ours(samples)
    answers = pair.ours.generate(samples, num_beams=3, max_length=8)
    for row, task in enumerate(samples["task"]):
        alone = pair.ours(rows_of(samples, [row]))["loss"]
        assert alone.item() == pytest.approx(together[f"loss_{task}"].item(), abs=1e-5)
        assert pair.ours.generate(rows_of(samples, [row]), num_beams=3, max_length=8) == [answers[row]]


def test_how_a_batch_runs_changes_neither_loss_nor_gradients(pair, samples, hub_folder, monkeypatch):
    results = []
    for batching, most in (("groups", None), ("padded", None), ("packed", None), ("packed", 100)):
        model = load(hub_folder(pair.kind), pair.kind, batching=batching, max_tokens=most, trainable="all")
        output = model.train()(samples)
        output["loss"].backward()
        results.append((output, {name: parameter.grad for name, parameter in model.named_parameters()}))
        assert model.batching == ("groups" if (pair.kind, batching) == ("t5", "packed") else batching)
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=0, atol=1e-5)


def test_a_long_prompt_keeps_its_end_and_its_frame(pair, monkeypatch):
    monkeypatch.setattr(pair.ours, "max_txt_len", 10)
    monkeypatch.setattr(pair.ours, "max_question_len", 8)
    text = "The mayor spoke in the harbour of Oslo where police had closed two streets. Who is it?"
    (ids,), (prompt,) = pair.ours.ids([text]), pair.ours.prompts([text])
    assert prompt == ([1, *ids[-9:]] if pair.kind == "llama" else [*ids[-9:], 2])
    tokens = pair.ours.qformer_tokenizer(text, add_special_tokens=False)["input_ids"]
    for reads, wanted in (("instruction", tokens[-6:]), ("question", tokens[:6])):
        monkeypatch.setattr(pair.ours, "reads", reads)
        assert pair.ours.questions([text])[0].prompt == [1, *wanted, 2]


def test_an_article_that_spells_a_special_token_ends_nothing(pair):
    ids = pair.ours.ids(["He said </s> and <image> left."])[0]
    assert not {*ids} & {*pair.ours.tokenizer.all_special_ids}


def test_a_tokenizer_without_a_token_to_fill_up_takes_its_last(hub_folder, tmp_path, samples):
    folder = shutil.copytree(hub_folder("llama"), tmp_path / "copy")
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).exists():  # the second up to transformers 4
            values = json.loads((folder / name).read_text())
            (folder / name).write_text(json.dumps({k: v for k, v in values.items() if k != "pad_token"}))
    model = load(folder, "llama", batching="padded")
    assert model.tokenizer.pad_token == "</s>"
    torch.testing.assert_close(model(samples), load(hub_folder("llama"), "llama")(samples), rtol=0, atol=1e-5)


def test_a_tokenizer_that_reads_a_framed_text_in_another_way_is_refused():
    def tokenizer(text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": [1, 7] if add_special_tokens else [8]}

    tokenizer.name_or_path = "odd"  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="odd: its tokenizer reads 'a' in two ways"):
        frame_of(tokenizer)


# Frozen parts and precision


@pytest.mark.parametrize("kind", KINDS)
def test_the_config_s_precision_and_trained_parts(hub_folder, kind, samples):
    model = load(hub_folder(kind), kind, dtype="bf16", vision_dtype="bf16", gradient_checkpointing=True)
    dtypes = {name.split(".")[0]: parameter.dtype for name, parameter in model.named_parameters()}
    assert dtypes == {
        "query_tokens": torch.float32,
        "vision_model": torch.bfloat16,
        "qformer": torch.float32,
        "language_projection": torch.float32,
        "language_model": torch.bfloat16,
    }
    trained = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert (
        trained
        == {"query_tokens", "qformer", "language_projection"}
        == {name.split(".")[0] for name in model.trainable_state()}
    )
    assert all(buffer.dtype != torch.bfloat16 for buffer in model.buffers())  # rotary frequencies
    exact = load(hub_folder(kind), kind)
    output = model.train()(samples)
    torch.testing.assert_close(output["loss"], exact(samples)["loss"], rtol=0.05, atol=0)
    output["loss"].backward()
    assert all((parameter.grad is not None) == parameter.requires_grad for parameter in model.parameters())
    assert model.generate(samples, num_beams=2, max_length=3)


@pytest.mark.parametrize("trainable", ["connector", "all"])
def test_a_frozen_image_encoder_runs_without_gradients(hub_folder, samples, trainable):
    model = load(hub_folder("llama"), "llama", trainable=trainable)
    assert model.encode_images(samples["image"]).requires_grad == (trainable == "all")


def test_what_is_trained_is_float32(hub_folder):
    model = load(hub_folder("llama"), "llama", dtype="bf16", vision_dtype="bf16", trainable="connector+llm")
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.bfloat16}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("trainable", ["connector", "all"])
def test_a_checkpoint_holds_what_is_trained_and_completes_the_folder(
    hub_folder, samples, tmp_path, kind, trainable
):
    """A T5 ties three embeddings, which safetensors would refuse to hold three times."""
    model = load(hub_folder(kind), kind, trainable=trainable)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.01
    save_file(model.trainable_state(), tmp_path / "weights.safetensors")
    finetuned = {"load_finetuned": True, "finetuned": str(tmp_path / "weights.safetensors")}
    other = load(hub_folder(kind), kind, trainable=trainable, **finetuned)
    assert other(samples)["loss"] == model(samples)["loss"] != load(hub_folder(kind), kind)(samples)["loss"]
    if trainable == "connector":
        with pytest.raises(UserError, match=r"another model or size \(\d+ missing, 0 unknown"):
            load(hub_folder(kind), kind, trainable="connector+llm", **finetuned)


def test_weights_without_memory_have_the_shapes_and_tied_weights_of_the_model(hub_folder):
    for kind in KINDS:
        config = OmegaConf.load(InstructBlip.default_config_path(TYPES[kind])).model
        config.pretrained = str(hub_folder(kind))
        config.max_txt_len = 160
        blank, full = InstructBlip.without_weights(config), load(hub_folder(kind), kind)
        assert all(parameter.is_meta for parameter in blank.parameters())
        assert {name: p.shape for name, p in blank.named_parameters()} == {
            name: p.shape for name, p in full.named_parameters()
        }
        give_memory(blank)
        assert not any(parameter.is_meta for parameter in blank.parameters())
        for name, buffer in full.named_buffers():
            assert blank.get_buffer(name).equal(buffer)


# Bad input


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (
            "t5",
            {"dtype": "fp16"},
            "model.dtype: 'fp16' found, which a T5 overflows; 'bf16' or 'fp32' expected",
        ),
        ("llama", {"dtype": "int8"}, "model.dtype: 'int8' found; one of fp32, bf16, fp16 expected"),
        ("llama", {"vision_dtype": "half"}, "model.vision_dtype: 'half' found; one of fp32, bf16, fp16"),
        ("llama", {"qformer_text": "both"}, "model.qformer_text: 'both' found; 'question' or 'instruction'"),
        (
            "llama",
            {"max_txt_len": 300},
            "model.max_txt_len: 300 found; with 4 image tokens and max_output_txt_len 256 that makes 560, at "
            "most text_config.max_position_embeddings (512) expected; lower one of them",
        ),
        ("llama", {"max_question_len": 129}, "model.max_question_len: 129 found, at most"),
        ("llama", {"pretrained": "no/such/folder"}, "model.pretrained: "),
    ],
)
def test_values_that_would_fail_later_are_refused_at_once(hub_folder, kind, changes, message):
    with pytest.raises(UserError) as error:
        load(hub_folder(kind), kind, **changes)
    assert str(error.value).startswith(message)
