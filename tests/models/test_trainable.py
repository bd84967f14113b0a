"""Which parameters one step of AdamW changes, at which rate, and what a checkpoint says of it."""

import builtins
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from lavis.models import load_model
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import nn

from ealign_plugin.errors import UserError
from ealign_plugin.models import InstructBlip
from ealign_plugin.models.lora import LLAMA_TARGETS, T5_TARGETS, LoraOptions, lora_options
from ealign_plugin.models.quantization import quantize_language_model
from ealign_plugin.models.trainable import Trained, parse_trainable, part_of, set_trainable, trainable_names
from ealign_plugin.models.weights.checkpoint import check_metadata, checkpoint_metadata
from ealign_plugin.training.optimizer import parameter_groups

CONNECTOR = ("qformer.", "query_tokens", "language_projection.")


@pytest.fixture
def fresh() -> Any:
    """A micro model of one's own; every call builds the same."""

    def build() -> Any:
        torch.manual_seed(0)
        return load_model("ealign_instructblip", "micro")

    return build


def message_of(call: Any, *args: Any, **options: Any) -> str:
    """The one clear line of a UserError."""
    with pytest.raises(UserError) as error:
        call(*args, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def step(model: nn.Module, samples: dict[str, Any], times: int = 1) -> None:
    optimizer = torch.optim.AdamW(parameter_groups(model, 1e-3, 0.05))
    for _ in range(times):
        model.train()
        optimizer.zero_grad()
        model(samples)["loss"].backward()
        optimizer.step()


def changed(model: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    """Names of the weights that are not what they were, bit for bit."""
    return {name for name, value in model.state_dict().items() if not value.equal(before[name])}


def snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


# What is trained

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
def test_a_step_changes_what_the_recipe_names_and_nothing_else(fresh, samples, trainable, roots):
    model = fresh()
    assert set_trainable(model, trainable).lora is None
    before = snapshot(model)
    step(model, samples)
    assert changed(model, before) == named(model, *roots)


def test_a_step_of_lora_changes_connector_and_adapters_and_nothing_else(fresh, samples):
    pytest.importorskip("peft")
    model = fresh()
    trained = set_trainable(model, "lora")
    assert trained == Trained(parts=("connector", "lora"), lora=LoraOptions(targets=LLAMA_TARGETS))
    before = snapshot(model)
    step(model, samples, times=2)  # A moves only once B is no longer zero
    adapters = {name for name in before if ".lora_" in name}
    layers = model.config.text_config.num_hidden_layers
    assert len(adapters) == 2 * layers * len(LLAMA_TARGETS)
    assert changed(model, before) == named(model, *CONNECTOR) | adapters


def test_the_output_stays_the_same_when_lora_is_put_in(fresh, samples):
    pytest.importorskip("peft")
    model = fresh().eval()
    loss, answers = model(samples)["loss"], model.generate(samples, num_beams=2, max_length=8)
    names = set(model.state_dict())
    set_trainable(model, "lora")
    model.eval()
    assert model(samples)["loss"] == loss
    assert model.generate(samples, num_beams=2, max_length=8) == answers
    # Around it, every name of the language model would have changed.
    renamed = names - set(model.state_dict())
    assert renamed == {name for name in names if name.removesuffix(".weight").endswith(LLAMA_TARGETS)}


def test_lora_s_options_reach_the_layers(fresh):
    pytest.importorskip("peft")
    model = fresh()
    options = LoraOptions(targets=("q_proj", "up_proj"), r=3, alpha=6, dropout=0.25)
    assert set_trainable(model, "vision+lora", options).lora == options
    adapters = [name for name in trainable_names(model) if ".lora_" in name]
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in adapters} == {"q_proj", "up_proj"}
    layer = model.language_model.model.layers[0].self_attn.q_proj
    assert layer.lora_A["default"].weight.shape == (3, 128)
    assert layer.scaling == {"default": 2.0}
    assert layer.lora_dropout["default"].p == 0.25
    assert {part_of(model, name) for name in trainable_names(model)} == {"vision", "lora"}


def test_adapters_of_half_precision_weights_are_float32(fresh):
    pytest.importorskip("peft")
    model = fresh()
    model.language_model.to(torch.bfloat16)
    set_trainable(model, "lora")
    types = {"lora_" in name: p.dtype for name, p in model.language_model.named_parameters()}
    assert types == {True: torch.float32, False: torch.bfloat16}


def test_a_frozen_image_encoder_stays_in_eval_mode(fresh):
    model = fresh()
    set_trainable(model, "connector+llm")
    model.train()
    assert not any(module.training for module in model.vision_model.modules())
    assert model.training and all(module.training for module in model.qformer.modules())
    copy = pickle.loads(pickle.dumps(model.vision_model))
    assert not copy.train().encoder.training
    model.eval()
    assert not any(module.training for module in model.modules())


def test_a_trained_image_encoder_follows_the_mode(fresh):
    model = fresh()
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
        ("conector", "model.trainable: 'conector' found; one of connector, connector+llm, lora, all, "),
        ("conector", "did you mean connector?"),
        ("vision+llms", "did you mean llm?"),
        ("llm+lora", "model.trainable: 'llm+lora' found; llm or lora expected, not both"),
        ("", "model.trainable: '' found; one of"),
        (None, "model.trainable: None found; one of"),
        (["llm"], "model.trainable: ['llm'] found; one of"),
    ],
)
def test_parts_that_there_are_not(fresh, trainable, message):
    model = fresh()
    assert message in message_of(set_trainable, model, trainable)
    assert len(trainable_names(model)) == len(list(model.parameters()))  # nothing was done by halves


# LoRA's options


def test_the_defaults_are_those_of_later_work():
    assert lora_options(None) == lora_options({}) == LoraOptions(targets=None, r=16, alpha=16, dropout=0.05)
    config = OmegaConf.create({"r": 8, "targets": ["q_proj", "q_proj"]})
    assert lora_options(config) == LoraOptions(targets=("q_proj",), r=8)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"rank": 4}, "model.lora: unknown option 'rank' found; one of targets, r, alpha, dropout expected"),
        ({"dropuot": 0}, "did you mean dropout?"),
        ({"r": 0}, "model.lora.r: 0 found; a whole number of at least 1 expected"),
        ({"r": 2.0}, "model.lora.r: 2.0 found"),
        ({"r": True}, "model.lora.r: True found"),
        ({"alpha": 0}, "model.lora.alpha: 0 found; a number above 0 expected"),
        ({"alpha": "16"}, "model.lora.alpha: '16' found"),
        ({"alpha": float("nan")}, "model.lora.alpha: nan found"),
        ({"dropout": 1}, "model.lora.dropout: 1 found; at least 0 and below 1 expected"),
        ({"dropout": None}, "model.lora.dropout: None found"),
        ({"targets": "q_proj"}, "model.lora.targets: 'q_proj' found; a list of names of linear layers"),
        ({"targets": []}, "model.lora.targets: [] found"),
        ({"targets": 3}, "model.lora.targets: 3 found"),
        (16, "model.lora: 16 found; options expected, such as {r: 16, alpha: 16}"),
        ({"targets": ["q_proj", 3]}, "model.lora.targets: ['q_proj', 3] found"),
    ],
)
def test_options_out_of_range(config, message):
    assert message in message_of(lora_options, config)


def test_a_target_that_names_no_layer(fresh):
    pytest.importorskip("peft")
    model = fresh()
    message = message_of(set_trainable, model, "lora", LoraOptions(targets=("q_proj", "qproj")))
    assert message.startswith(
        "model.lora.targets: 'qproj' found, which names no linear layer of the language model "
        "(LlamaForCausalLM); one of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, lm_head "
        "expected; did you mean "
    )
    assert not any(".lora_" in name for name in model.state_dict())
    assert len(trainable_names(model)) == len(list(model.parameters()))


def test_t5_has_targets_of_its_own(fresh):
    pytest.importorskip("peft")
    from transformers import T5Config, T5ForConditionalGeneration

    model = fresh()
    shape = {"d_model": 16, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2, "vocab_size": 32}
    model.language_model = T5ForConditionalGeneration(T5Config(**shape, feed_forward_proj="gated-gelu"))
    assert set_trainable(model, "lora").lora == LoraOptions(targets=T5_TARGETS)
    adapted = {n.split(".lora_")[0].rpartition(".")[2] for n in model.state_dict() if ".lora_" in n}
    assert adapted == set(T5_TARGETS)


def test_without_peft_only_lora_fails(fresh, monkeypatch):
    without(monkeypatch, "peft")
    set_trainable(fresh(), "connector")
    message = message_of(set_trainable, fresh(), "lora")
    assert "needs the package peft, which is missing; pip install 'ealign-plugin[lora]'" in message


def without(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """As if the package weren't installed."""
    real = builtins.__import__

    def refuse(name: str, *args: Any, **options: Any) -> Any:
        if name.split(".")[0] == package:
            raise ImportError(f"No module named {package!r}")
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)


# Optimiser


@pytest.mark.parametrize("trainable", ["connector", "connector+llm", "lora", "all"])
def test_groups_hold_each_trained_parameter_once(fresh, trainable):
    if trainable == "lora":
        pytest.importorskip("peft")
    model = fresh()
    set_trainable(model, trainable)
    found = [id(p) for group in parameter_groups(model, 1e-3, 0.1) for p in group["params"]]
    assert len(found) == len(set(found)) == len(trainable_names(model))
    assert set(found) == {id(p) for p in model.parameters() if p.requires_grad}


def test_vectors_are_not_decayed_and_the_rest_is(fresh):
    model = fresh()
    set_trainable(model, "all")
    groups = parameter_groups(model, 1e-3, 0.1)
    for group in groups:
        assert {p.ndim > 1 for p in group["params"]} == {group["weight_decay"] == 0.1}
        assert group["name"].endswith(" (vectors)") == (group["weight_decay"] == 0)
    (connector,) = [group for group in groups if group["name"] == "connector"]
    assert any(p is model.query_tokens for p in connector["params"])  # as in LAVIS


def test_each_part_has_its_own_rate(fresh):
    pytest.importorskip("peft")
    model = fresh()
    set_trainable(model, "vision+connector+lora")
    groups = parameter_groups(model, 1e-3, 0.1, {"vision": 1e-4, "lora": 5e-3})
    rates = {group["name"]: (group["lr"], pytest.approx(group["lr_scale"])) for group in groups}
    assert rates == {
        "vision": (1e-4, 0.1),
        "vision (vectors)": (1e-4, 0.1),
        "connector": (1e-3, 1.0),
        "connector (vectors)": (1e-3, 1.0),
        "lora": (5e-3, 5.0),
    }


def test_without_rates_of_their_own_parts_learn_as_one(fresh, samples):
    """The groups are a matter of bookkeeping: the same bits come out as with two groups for all parts."""
    models = [fresh(), fresh()]
    for model, grouped in zip(models, (True, False), strict=True):
        trained = list(model.parameters())
        plain = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": 0.05},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        groups = parameter_groups(model, 1e-3, 0.05) if grouped else plain
        optimizer = torch.optim.AdamW(groups, lr=1e-3, fused=True)
        for _ in range(2):
            optimizer.zero_grad()
            model(samples)["loss"].backward()
            optimizer.step()
    assert changed(models[0], models[1].state_dict()) == set()


def test_a_model_without_parts_is_one_part():
    groups = parameter_groups(nn.Linear(2, 3), 0.1, 0.01, {"model": 0.2})
    assert [(group["name"], group["lr"]) for group in groups] == [("model", 0.2), ("model (vectors)", 0.2)]


@pytest.mark.parametrize(
    ("lr", "lrs", "message"),
    [
        (0, {}, "run.init_lr: 0 found; a learning rate above 0 expected"),
        (float("nan"), {}, "run.init_lr: nan found"),
        (float("inf"), {}, "run.init_lr: inf found"),
        (1e-3, {"connector": -1.0}, "run.lrs.connector: -1.0 found"),
        (1e-3, {"connector": "1e-3"}, "run.lrs.connector: '1e-3' found"),
        (1e-3, {"llm": 1e-5}, "run.lrs: 'llm' found, which is not trained; one of connector expected"),
        (1e-3, {"conector": 1e-5}, "did you mean connector?"),
    ],
)
def test_rates_that_cannot_be(fresh, lr, lrs, message):
    model = fresh()
    set_trainable(model, "connector")
    assert message in message_of(parameter_groups, model, lr, 0.1, lrs)


def test_nothing_to_train():
    message = message_of(parameter_groups, nn.Linear(2, 3).requires_grad_(False), 1e-3, 0.1)
    assert message.startswith("model.trainable: no parameter is left to train")


# Checkpoints


def test_a_checkpoint_holds_what_was_trained_and_restores_it(fresh, samples):
    pytest.importorskip("peft")
    model, other = fresh(), fresh()
    for each in (model, other):
        set_trainable(each, "lora")
    step(model, samples, times=2)
    state = model.trainable_state()
    assert list(state) == trainable_names(model) and not any(v.requires_grad for v in state.values())
    assert not any(name.startswith("vision_model") or "base_layer" in name for name in state)
    other.load_state_dict(state, strict=False)
    assert changed(other, model.state_dict()) == set()


def test_tied_weights_are_named_once(fresh):
    names = trainable_names(fresh())
    assert "language_model.model.embed_tokens.weight" in names
    assert "language_model.lm_head.weight" not in names


HERE = checkpoint_metadata(
    arch="ealign_instructblip",
    base="vicuna7b",
    trained=Trained(parts=("connector", "lora"), lora=LoraOptions(targets=("q_proj",))),
)


def there(**changes: Any) -> dict[str, str]:
    lora = LoraOptions(**{"targets": ("q_proj",), **changes})
    trained = Trained(parts=("connector", "lora"), lora=lora)
    return checkpoint_metadata(arch="ealign_instructblip", base="vicuna7b", trained=trained)


def test_the_runner_s_checkpoint_names_its_recipe_and_another_recipe_refuses_it(tmp_path):
    def built(trainable: str):
        config = OmegaConf.load(InstructBlip.default_config_path("micro")).model
        return InstructBlip.from_config(OmegaConf.merge(config, {"trainable": trainable}))

    model, path = built("connector"), tmp_path / "a.safetensors"
    save_file(model.trainable_state(), path, metadata=model.identity)
    built("connector").load_checkpoint(path)
    with pytest.raises(UserError, match="model.trainable is 'connector[+]llm' here and was 'connector' when"):
        built("connector+llm").load_checkpoint(path)


def test_metadata_survives_a_file(tmp_path):
    from safetensors import safe_open
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(1)}, tmp_path / "w.safetensors", metadata=HERE)
    with safe_open(tmp_path / "w.safetensors", "pt") as file:
        found = file.metadata()
    assert found == HERE
    check_metadata(tmp_path, found, HERE)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({**HERE, "arch": "ealign_llava"}, "model.arch is 'ealign_instructblip' here and was 'ealign_llava'"),
        ({**HERE, "base": "smol"}, "the base weights is 'vicuna7b' here and was 'smol'"),
        ({**HERE, "trainable": "llm"}, "model.trainable is 'connector+lora' here and was 'llm'"),
        (there(r=4), "model.lora.r is 16 here and was 4 when it was written; use the same"),
        (there(alpha=32), "model.lora.alpha is 16 here and was 32"),
        (there(targets=("v_proj",)), "model.lora.targets is ['q_proj'] here and was ['v_proj']"),
    ],
)
def test_a_checkpoint_of_another_recipe(found, message):
    assert message_of(check_metadata, Path("a.safetensors"), found, HERE).startswith(
        "a.safetensors: a checkpoint of another recipe: "
    )
    assert message in message_of(check_metadata, "a.safetensors", found, HERE)


@pytest.mark.parametrize(
    "found", [None, {}, {"format": "pt"}, there(dropout=0.5), {"lora": "{"}, {"lora": "3"}]
)
def test_metadata_that_says_nothing_against_it(found):
    check_metadata("a.safetensors", found, HERE)


# 4-bit weights


def test_four_bits_need_a_frozen_language_model_a_gpu_and_bitsandbytes(fresh, monkeypatch):
    model = fresh()
    quantize = quantize_language_model
    assert message_of(quantize, model, "int3", "lora") == (
        "model.quantize: 'int3' found; 'nf4' or null expected"
    )
    assert "weights of 4 bits cannot be trained" in message_of(quantize, model, "nf4", "connector+llm")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "which needs a GPU" in message_of(quantize, model, "nf4", "lora")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    without(monkeypatch, "bitsandbytes")
    assert "pip install 'ealign-plugin[quantize]'" in message_of(quantize, model, "nf4", "lora")
