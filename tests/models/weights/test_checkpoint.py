"""Checkpoints of a model: what they hold, that they load, and which ones are refused."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from lavis.models import load_model
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file

from ealign_plugin.errors import UserError
from ealign_plugin.models import InstructBlip
from ealign_plugin.models.lora import LoraOptions
from ealign_plugin.models.trainable import Trained, set_trainable, trainable_names
from ealign_plugin.models.weights.checkpoint import check_metadata, checkpoint_metadata
from tests.messages import message_of
from tests.models.factories import changed, micro_instructblip, step


@pytest.fixture
def checkpoint(model: InstructBlip, tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    save_file(model.trainable_state(), path)
    return path


def test_weights_survive_a_file(model, samples, checkpoint):
    torch.manual_seed(9)
    other = micro_instructblip()
    wanted = model(samples)["loss"]
    assert abs(other(samples)["loss"] - wanted) > 1e-3
    other.load_checkpoint(checkpoint)
    assert other(samples)["loss"] == wanted
    features = model.encode_images(samples["image"][:1])
    assert other.score(features, "a", ["b"], ["c"]).equal(model.score(features, "a", ["b"], ["c"]))


def test_tied_weights_are_saved_once_and_stay_tied(model, checkpoint):
    assert set(model.state_dict()) - set(load_file(checkpoint)) == {"language_model.lm_head.weight"}
    other = micro_instructblip()
    other.load_checkpoint(checkpoint)
    assert other.language_model.lm_head.weight is other.language_model.get_input_embeddings().weight


def test_untied_weights_are_all_saved(tmp_path):
    model = micro_instructblip(text_config__tie_word_embeddings=False)
    save_file(model.trainable_state(), tmp_path / "weights.safetensors")
    assert set(load_file(tmp_path / "weights.safetensors")) == set(model.state_dict())
    model.load_checkpoint(tmp_path / "weights.safetensors")


def test_finetuned_weights_from_the_config_and_from_load_model(model, samples, checkpoint):
    wanted = model(samples)["loss"]
    torch.manual_seed(9)
    assert micro_instructblip(load_finetuned=True, finetuned=str(checkpoint))(samples)["loss"] == wanted
    given = load_model("ealign_instructblip", "micro", is_eval=True, checkpoint=str(checkpoint))
    assert given(samples)["loss"] == wanted


def test_a_missing_checkpoint(model, tmp_path):
    path = tmp_path / "none.safetensors"
    assert message_of(model.load_checkpoint, path).startswith(f"checkpoint '{path}': no such file; ")
    assert message_of(model.load_checkpoint, tmp_path).startswith(f"checkpoint '{tmp_path}': no such file; ")
    assert message_of(micro_instructblip, load_finetuned=True).startswith("checkpoint '': no such file; ")


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("dump", [pickle.dump, torch.save], ids=["pickle", "torch"])
def test_a_pickle_is_refused_and_never_unpickled(model, tmp_path, dump):
    path, trap = tmp_path / "model.safetensors", tmp_path / "exploded"
    with open(path, "wb") as file:
        dump({"model": Bomb(trap)}, file)
    assert f"{path}: it is no safetensors file" in message_of(model.load_checkpoint, path)
    assert not trap.exists()


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 64])
def test_a_file_of_something_else(model, tmp_path, content):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    assert f"{path}: it is no safetensors file" in message_of(model.load_checkpoint, path)


def test_a_file_cut_off(model, checkpoint):
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    assert f"{checkpoint}: it is no safetensors file" in message_of(model.load_checkpoint, checkpoint)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"text_config__num_hidden_layers": 2}, "0 missing, 9 unknown, 0 of another shape"),
        ({"text_config__num_hidden_layers": 4}, "9 missing, 0 unknown, 0 of another shape"),
        ({"num_query_tokens": 4}, "1 of another shape; the first is query_tokens"),
    ],
)
def test_a_checkpoint_of_another_size_changes_nothing(checkpoint, changes, found):
    other = micro_instructblip(**changes)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    message = message_of(other.load_checkpoint, checkpoint)
    assert message.startswith(f"{checkpoint}: weights of another model or size (") and found in message
    torch.testing.assert_close(dict(other.state_dict()), before, rtol=0, atol=0)


def test_a_checkpoint_of_another_model(model, tmp_path):
    save_file({"conv1.weight": torch.zeros(2)}, tmp_path / "resnet.safetensors")
    message = message_of(model.load_checkpoint, tmp_path / "resnet.safetensors")
    assert "1 unknown" in message and "conv1.weight" in message


def test_a_checkpoint_holds_what_was_trained_and_restores_it(new_model, samples):
    pytest.importorskip("peft")
    model, other = new_model(), new_model()
    for each in (model, other):
        set_trainable(each, "lora")
    step(model, samples, times=2)
    state = model.trainable_state()
    assert list(state) == trainable_names(model) and not any(v.requires_grad for v in state.values())
    assert not any(name.startswith("vision_model") or "base_layer" in name for name in state)
    other.load_state_dict(state, strict=False)
    assert changed(other, model.state_dict()) == set()


def test_tied_weights_are_named_once(new_model):
    names = trainable_names(new_model())
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
