"""Which parameters one step of AdamW changes under each value of `model.trainable`."""

import pickle

import pytest
import torch
from torch import nn

from ealign_plugin.models.lora import LLAMA_TARGETS, LoraOptions
from ealign_plugin.models.trainable import Trained, parse_trainable, set_trainable, trainable_names
from tests.messages import message_of
from tests.models.factories import changed, step

CONNECTOR = ("qformer.", "query_tokens", "language_projection.")


def snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


# The Q-Former's last layer transforms the question once more for nobody, as only the queries are read: no
# gradient reaches it, and its vectors have no decay either.
UNREAD = {
    f"qformer.encoder.layer.1.{name}"
    for name in (
        "intermediate.dense.bias",
        "output.dense.bias",
        "output.LayerNorm.weight",
        "output.LayerNorm.bias",
    )
}


def named(model: nn.Module, *roots: str) -> set[str]:
    return {name for name in model.state_dict() if name.startswith(roots)} - UNREAD


@pytest.mark.parametrize(
    ("trainable", "roots"),
    [
        ("connector", CONNECTOR),
        ("connector+llm", (*CONNECTOR, "language_model.")),
        ("all", ("vision_model.", *CONNECTOR, "language_model.")),
        ("vision+connector", ("vision_model.", *CONNECTOR)),
        ("llm", ("language_model.",)),
    ],
)
def test_a_step_changes_what_the_recipe_names_and_nothing_else(new_model, samples, trainable, roots):
    model = new_model()
    assert set_trainable(model, trainable).lora is None
    before = snapshot(model)
    step(model, samples)
    assert changed(model, before) == named(model, *roots)


def test_a_step_of_lora_changes_connector_and_adapters_and_nothing_else(new_model, samples):
    pytest.importorskip("peft")
    model = new_model()
    trained = set_trainable(model, "lora")
    assert trained == Trained(parts=("connector", "lora"), lora=LoraOptions(targets=LLAMA_TARGETS))
    before = snapshot(model)
    step(model, samples, times=2)  # A moves only once B is no longer zero
    adapters = {name for name in before if ".lora_" in name}
    layers = model.config.text_config.num_hidden_layers
    assert len(adapters) == 2 * layers * len(LLAMA_TARGETS)
    assert changed(model, before) == named(model, *CONNECTOR) | adapters


def test_a_frozen_image_encoder_stays_in_eval_mode(new_model):
    model = new_model()
    set_trainable(model, "connector+llm")
    model.train()
    assert not any(module.training for module in model.vision_model.modules())
    assert model.training and all(module.training for module in model.qformer.modules())
    copy = pickle.loads(pickle.dumps(model.vision_model))
    assert not copy.train().encoder.training
    model.eval()
    assert not any(module.training for module in model.modules())


def test_a_trained_image_encoder_follows_the_mode(new_model):
    model = new_model()
    set_trainable(model, "all")
    model.train()
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("connector", ("connector",)),
        ("connector+llm", ("connector", "llm")),
        ("lora", ("connector", "lora")),
        ("connector+lora", ("connector", "lora")),
        ("all", ("vision", "connector", "llm")),
        ("lora + vision", ("vision", "lora")),
    ],
)
def test_parts_are_named_in_any_order(text, parts):
    assert parse_trainable(text) == parts


@pytest.mark.parametrize(
    ("trainable", "message"),
    [
        (
            "conector",
            "model.trainable: unknown part 'conector'; did you mean 'connector'? Expected one",
        ),
        ("conector", "Expected one of all, connector, connector+llm, llm, lora, vision; join parts by"),
        ("vision+llms", "model.trainable: 'vision+llms' found: unknown part 'llms'; did you mean 'llm'?"),
        ("llm+lora", "model.trainable: 'llm+lora' found; llm or lora expected, not both"),
        ("", "model.trainable: unknown part ''; expected one of"),
        (None, "model.trainable: None found: unknown part 'None'; expected one of"),
        (["llm"], "model.trainable: ['llm'] found: unknown part"),
    ],
)
def test_parts_that_there_are_not(new_model, trainable, message):
    model = new_model()
    assert message in message_of(set_trainable, model, trainable)
    assert len(trainable_names(model)) == len(list(model.parameters()))  # nothing was done by halves
