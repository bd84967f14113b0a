"""Our arithmetic beside transformers' own InstructBLIP on the same weights, one example at a time."""

from typing import Any

import pytest
import torch
from transformers import InstructBlipConfig, InstructBlipForConditionalGeneration

from ealign_plugin.models import InstructBlip

IMAGE_TOKEN = "<image>"


class Reference:
    """transformers' class, fed as its processor would feed it: image tokens, beginning of text, prompt."""

    def __init__(self, model: InstructBlip) -> None:
        self.tokenizer = model.tokenizer
        config = InstructBlipConfig(
            **{
                **model.config.to_dict(),
                "image_token_index": model.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
            }
        )
        self.hf = InstructBlipForConditionalGeneration(config).eval()
        self.hf.load_state_dict(model.state_dict(), strict=True)
        self.image = [config.image_token_index] * config.num_query_tokens

    def ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def prompt(self, instruction: str) -> list[int]:
        return [*self.image, self.tokenizer.bos_token_id, *self.ids(instruction)]

    def inputs(self, image: torch.Tensor, question: str) -> dict[str, torch.Tensor]:
        return {
            "pixel_values": image[None],
            "qformer_input_ids": torch.tensor([[self.tokenizer.bos_token_id, *self.ids(question)]]),
        }

    @torch.no_grad()
    def outputs(self, image: torch.Tensor, question: str, prompt: list[int], target: list[int]) -> Any:
        return self.hf(
            **self.inputs(image, question),
            input_ids=torch.tensor([prompt + target]),
            labels=torch.tensor([[-100] * len(prompt) + target]),
        )

    def generate(self, image: torch.Tensor, instruction: str, **options: Any) -> list[str]:
        ids = self.prompt(instruction)
        output = self.hf.generate(
            **self.inputs(image, instruction),
            input_ids=torch.tensor([ids]),
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=self.tokenizer.eos_token_id,
            do_sample=False,
            **options,
        )
        return self.tokenizer.batch_decode(output[:, len(ids) :], skip_special_tokens=True)


@pytest.fixture(scope="module")
def reference(model: InstructBlip) -> Reference:
    return Reference(model)


def test_the_weights_bear_the_same_names(model, reference):
    ours, theirs = model.state_dict(), reference.hf.state_dict()
    assert {name: value.shape for name, value in ours.items()} == {n: v.shape for n, v in theirs.items()}


def test_logits_of_a_padded_batch_equal_those_of_each_example_alone(model, reference, samples, monkeypatch):
    monkeypatch.setattr(model, "padding_waste", 1.0)  # one padded batch of all rows, longest first
    seen = []
    hook = model.language_model.model.register_forward_hook(
        lambda *call: seen.append(call[-1].last_hidden_state)
    )
    with hook, torch.no_grad():
        model(samples)
        (logits,) = map(model.language_model.lm_head, seen)
    lengths = []
    for row, logit in enumerate(logits):
        instruction, target = samples["instruction"][row], reference.ids(samples["target"][row])
        prompt = reference.prompt(instruction)
        wanted = reference.outputs(samples["image"][row], instruction, prompt, target).logits[0]
        lengths.append(len(wanted))
        torch.testing.assert_close(logit[: len(wanted)], wanted, rtol=0, atol=1e-5)
    assert len(set(lengths)) == len(lengths)


@pytest.mark.parametrize("row", range(4))
def test_loss_of_an_example(model, reference, samples, rows_of, row, monkeypatch):
    monkeypatch.setattr(model, "loss_reduction", "token")
    instruction = samples["instruction"][row]
    target = [*reference.ids(samples["target"][row]), model.tokenizer.eos_token_id]
    wanted = reference.outputs(samples["image"][row], instruction, reference.prompt(instruction), target).loss
    loss = model(rows_of(samples, [row]))["loss"]
    assert loss.item() == pytest.approx(wanted.item(), abs=1e-5)


@pytest.mark.parametrize("beams", [1, 5])
def test_generated_text(model, reference, samples, beams):
    wanted = [
        reference.generate(image, instruction, num_beams=beams, max_new_tokens=12, min_new_tokens=1)[
            0
        ].strip()
        for image, instruction in zip(samples["image"], samples["instruction"], strict=True)
    ]
    assert model.generate(samples, num_beams=beams, max_length=12) == wanted
    assert len(set(wanted)) == len(wanted)


@pytest.mark.parametrize("answers", [["yes", "no"], ["Ana Lopez", "Jun Park"], ["yes", "Ana Lopez", "no"]])
@pytest.mark.parametrize("batch_tokens", [1, 200, 16_384])
def test_score_is_the_sum_of_the_answers_log_probabilities(model, reference, samples, answers, batch_tokens):
    image = samples["image"][0]
    candidates = ["", " The mayor left.", " Two streets are closed, the police say.", " The mayor left."]
    prefix, question = "Does it tell what the photo shows?", "Who is on the photo?"
    wanted = torch.zeros(len(candidates), len(answers))
    for i, candidate in enumerate(candidates):
        for j, answer in enumerate(answers):
            prompt, target = reference.prompt(prefix + candidate), reference.ids(answer)
            log = reference.outputs(image, question, prompt, target).logits[0].log_softmax(-1)
            wanted[i, j] = sum(log[len(prompt) - 1 + k, token] for k, token in enumerate(target))
    assert len(reference.ids("yes")) == 1 < len(reference.ids("Ana Lopez"))
    features = model.encode_images(image[None])
    scores = model.score(features, prefix, candidates, answers, question=question, batch_tokens=batch_tokens)
    torch.testing.assert_close(scores, wanted, rtol=0, atol=1e-4)
