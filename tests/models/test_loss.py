"""The loss of a batch: its reductions, its parts by task, and what it must not depend on."""

import pickle

import pytest
import torch

from ealign_plugin.models.loss import rows_of as tokens_of


def test_the_loss_of_an_example_does_not_depend_on_its_neighbours(model, samples, rows_of):
    together = model(samples)
    for row, task in enumerate(samples["task"]):
        alone = model(rows_of(samples, [row]))
        assert alone["loss"].item() == pytest.approx(together[f"loss_{task}"].item(), rel=1e-6)


def test_the_loss_depends_on_image_question_and_instruction(model, samples, rows_of):
    loss = model(samples)["loss_a"]
    others = [
        {**samples, "image": samples["image"].flip(0)},
        {**samples, "question": ["Where?"] * 4},
        {**samples, "instruction": ["Write."] * 4, "question": samples["instruction"]},
    ]
    for other in others:
        assert abs(model(other)["loss_a"] - loss) > 1e-4


@pytest.mark.parametrize("reduction", ["token", "example"])
@pytest.mark.parametrize("waste", [0.0, 0.15])
def test_padding_waste_changes_neither_loss_nor_gradients(model, samples, monkeypatch, reduction, waste):
    monkeypatch.setattr(model, "loss_reduction", reduction)
    losses, gradients = [], []
    for padding_waste in (waste, 1.0):
        monkeypatch.setattr(model, "padding_waste", padding_waste)
        model.zero_grad()
        output = model(samples)
        output["loss"].backward()
        losses.append(output)
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
        model.zero_grad()
    torch.testing.assert_close(*losses, rtol=0, atol=1e-6)
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-6)
    # The Q-Former's last layer transforms the question once more for nobody: only the queries are read.
    still = {name for name, gradient in gradients[0].items() if not gradient.any()}
    assert all(name.startswith("qformer.encoder.layer.1.") for name in still)


def test_loss_reductions_by_hand(model, samples, monkeypatch):
    lengths = [
        len(model.tokenizer(text, add_special_tokens=False)["input_ids"]) + 1 for text in samples["target"]
    ]
    each = [model(samples)[f"loss_{task}"].item() for task in samples["task"]]
    assert len(set(lengths)) > 1
    monkeypatch.setattr(model, "loss_reduction", "token")
    by_token = sum(loss * n for loss, n in zip(each, lengths, strict=True)) / sum(lengths)
    assert model(samples)["loss"].item() == pytest.approx(by_token, abs=1e-5)
    monkeypatch.setattr(model, "loss_reduction", "example")
    assert model(samples)["loss"].item() == pytest.approx(sum(each) / len(each), abs=1e-5)


def test_the_loss_of_a_task_is_the_mean_over_its_tokens(model, samples, rows_of, monkeypatch):
    monkeypatch.setattr(model, "loss_reduction", "token")
    samples["task"] = ["caption", "entity", "sentence", "entity"]
    output = model(samples)
    assert set(output) == {"loss", "tokens", "weight", "loss_caption", "loss_entity", "loss_sentence"}
    entities = model(rows_of(samples, [1, 3]))["loss"]
    assert output["loss_entity"].item() == pytest.approx(entities.item(), rel=1e-6)
    assert output["loss"].requires_grad and not output["loss_entity"].requires_grad


def test_tokens_counts_prompts_and_targets(model, samples):
    texts = samples["instruction"] + samples["target"]
    ids = model.tokenizer(texts, add_special_tokens=False)["input_ids"]
    # One more a row at the beginning of the prompt and one at the end of the target.
    assert model(samples)["tokens"].item() == sum(map(len, ids)) + 2 * len(samples["target"])


def test_bfloat16_autocast_keeps_sums_in_float32(model, samples):
    plain = model(samples)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(samples)
    assert {value.dtype for value in half.values()} == {torch.float32}
    torch.testing.assert_close(half, plain, rtol=0.02, atol=0)
    half["loss"].backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    model.zero_grad()


def test_tokens_that_another_process_made_give_the_same_loss(model, samples):
    made = pickle.loads(pickle.dumps(tokens_of(model, samples)))
    alone = samples | {"target": ["something else"] * len(made)}  # the rows are read instead
    together = model(samples)
    assert torch.equal(model({**alone, "rows": made})["loss"], together["loss"])
    assert not torch.equal(model({**alone, "rows": [*made[1:], made[0]]})["loss"], together["loss"])
