"""What `NewsModel` reads of texts that are longer than its limits."""

from typing import Any

import pytest
import torch

from ealign_plugin.models import InstructBlip


def ids_read(model: InstructBlip, module: str, samples: dict[str, Any]) -> list[int]:
    """The token ids that reach a text embedding for a batch of one."""
    seen = []
    with (
        model.get_submodule(module).register_forward_hook(lambda _, args, __: seen.append(args[0])),
        torch.no_grad(),
    ):
        model(samples)
    ((row,),) = [batch.tolist() for batch in seen]
    return row


def test_a_long_instruction_keeps_its_end_and_a_long_target_its_beginning(
    model, samples, rows_of, monkeypatch
):
    monkeypatch.setattr(model, "max_txt_len", 10)
    monkeypatch.setattr(model, "max_output_txt_len", 6)
    instruction, target = (
        model.tokenizer(samples[name][0], add_special_tokens=False)["input_ids"]
        for name in ("instruction", "target")
    )
    read = ids_read(model, "language_model.model.embed_tokens", rows_of(samples, [0]))
    bos, eos = model.tokenizer.bos_token_id, model.tokenizer.eos_token_id
    assert read == [bos, *instruction[-9:], *target[:5], eos]


def test_a_long_question_keeps_its_beginning(model, samples, rows_of, monkeypatch):
    monkeypatch.setattr(model, "max_question_len", 7)
    question = model.tokenizer(samples["instruction"][0], add_special_tokens=False)["input_ids"]
    read = ids_read(model, "qformer.embeddings.word_embeddings", rows_of(samples, [0]))
    assert read == [model.tokenizer.bos_token_id, *question[:6]]


@pytest.mark.parametrize("words", [0, 1, 5000])
def test_texts_of_any_length_give_a_loss(model, samples, words):
    text = " ".join(["Oslo"] * words)
    long = {"image": samples["image"][:1], "instruction": [text], "target": [text]}
    output = model(long)
    assert output["loss"].isfinite()
    assert output["tokens"] <= model.max_txt_len + model.max_output_txt_len
