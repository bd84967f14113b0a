"""A family is what inference asks for."""

import inspect

import pytest
import torch

from ealign_plugin.models import InstructBlip, Llava
from ealign_plugin.models.protocol import CaptioningModel


@pytest.mark.parametrize("family", [InstructBlip, Llava])
def test_a_family_has_what_the_protocol_names(family):
    model = family.from_pretrained("micro")
    assert isinstance(model, CaptioningModel)
    for name in ("encode_images", "score", "generate", "count_tokens", "remaining"):
        asked = inspect.signature(getattr(CaptioningModel, name)).parameters
        assert list(inspect.signature(getattr(family, name)).parameters) == list(asked)


def test_tokens_are_those_of_the_language_model_s_tokenizer_with_nothing_added():
    model = Llava.from_pretrained("micro")
    text = "Ana Lopez speaks in Oslo."
    assert model.count_tokens(text) == len(model.tokenizer(text, add_special_tokens=False)["input_ids"])
    assert model.count_tokens("") == 0
    assert model.device == torch.device("cpu")


def test_a_model_that_cannot_score_is_none():
    assert not isinstance(torch.nn.Linear(2, 2), CaptioningModel)
