"""InstructBLIP's config: what reaches the model, and which values are refused when it is built."""

import pytest

from tests.messages import message_of
from tests.models.factories import micro_instructblip


def test_the_config_reaches_the_model(model):
    assert (model.max_txt_len, model.max_output_txt_len, model.max_question_len) == (512, 64, 64)
    assert (model.loss_reduction, model.padding_waste) == ("example", 0.15)
    assert (model.batching, model.max_tokens, model.reads) == ("groups", None, "question")
    assert micro_instructblip(num_query_tokens=3, max_txt_len=99).max_txt_len == 99


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss_reduction": "sum"}, "model.loss_reduction: 'sum' found; 'token' or 'example' expected"),
        ({"max_question_len": 200}, "model.max_question_len: 200 found, at most"),
        (
            {"text_config__vocab_size": 1000},
            "model.text_config.vocab_size: 1000 found, at least 1905",
        ),
        ({"qformer_config__vocab_size": 9}, "model.qformer_config.vocab_size: 9 found"),
        ({"tokenizer": "nano"}, "model.tokenizer: "),
    ],
)
def test_values_that_would_fail_later_are_refused_at_once(changes, message):
    assert message_of(micro_instructblip, **changes).startswith(message)


@pytest.mark.parametrize("longest", [12, 20, 40])
def test_what_remains_of_an_instruction_is_what_its_prompt_spells(longest):
    model = micro_instructblip(max_txt_len=longest)
    short, long = "Who is it?", "Article: Zoë Keller spoke in Oslo. It rained on 3 May. " * 3 + "Who is it?"
    read = model.tokenizer.batch_decode(model.prompts([short, long]), skip_special_tokens=True)
    assert model.remaining([short]) == [short]
    assert [rest.strip() for rest in model.remaining([short, long])] == [text.strip() for text in read]
    assert len(model.prompts([long])[0]) == longest
