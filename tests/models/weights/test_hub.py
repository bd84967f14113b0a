"""Folders of models, here or on a hub: what is fetched, and whether it is the model that is expected."""

import hashlib
from pathlib import Path

import huggingface_hub
import pytest

from ealign_plugin.errors import UserError
from ealign_plugin.models.weights.hub import SHIPPED, fetch, load_tokenizer, read_config

# Folders of transformers


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file"),
        ("{", "it is no JSON"),
        ('["model_type"]', "a JSON object expected, list found"),
        ('{"model_type": "blip-2"}', "model_type 'blip-2' found, instructblip expected"),
    ],
)
def test_config_of_another_model(tmp_path, text, message):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=message):
        read_config(tmp_path, {"instructblip"})


def test_config_of_this_model(saved, model):
    config = read_config(saved[0], {"instructblip"})
    assert config["num_query_tokens"] == model.config.num_query_tokens


def test_a_folder_without_tokenizer(tmp_path):
    with pytest.raises(UserError, match="it holds no tokenizer"):
        load_tokenizer(tmp_path)


# Hubs


def test_a_folder_is_used_where_it_lies(tmp_path):
    assert fetch(str(tmp_path)) == tmp_path


def test_shipped_weights_are_found_by_name_from_any_folder(tmp_path, monkeypatch):
    (tmp_path / "micro").mkdir()
    monkeypatch.chdir(tmp_path)
    assert fetch("micro") == SHIPPED["micro"] and (SHIPPED["micro"] / "model.safetensors").is_file()
    assert fetch("./micro") == Path("micro")  # a folder of the user's


def test_shipped_weights_are_those_whose_making_is_told():
    told = (SHIPPED["micro"] / "README.txt").read_text()
    weights = (SHIPPED["micro"] / "model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() in told
    assert "projects/pretraining/micro.py" in told and "seed 1" in told


@pytest.mark.parametrize("source", ["/no/such/folder", "no_such_folder", "./a/b", "a/b/c", ""])
def test_neither_a_folder_nor_a_hub_id(source):
    with pytest.raises(
        UserError, match="model.llm: .*no such folder; expected a folder .* or 'micro', which"
    ):
        fetch(source, key="model.llm")


def test_a_file_where_a_folder_is_expected(tmp_path):
    (tmp_path / "x").touch()
    with pytest.raises(UserError, match="is a file"):
        fetch(str(tmp_path / "x"))


def test_a_hub_that_is_not_reached():
    """Tests run with HF_HUB_OFFLINE=1."""
    with pytest.raises(
        UserError, match="'nobody/nothing': no such folder here, and the hub does not"
    ) as error:
        fetch("nobody/nothing")
    assert "\n" not in str(error.value) and "HF_HUB_OFFLINE" in str(error.value)


@pytest.mark.parametrize("wanted", [True, False])
def test_what_is_asked_of_the_hub(monkeypatch, tmp_path, wanted):
    calls = []
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda *a, **k: calls.append((a, k)) or str(tmp_path)
    )
    assert fetch("owner/name@v1.0", weights=wanted) == tmp_path
    ((positional, options),) = calls
    assert positional == ("owner/name",) and options["revision"] == "v1.0"
    names = [
        "config.json",
        "qformer_tokenizer/tokenizer.json",
        "tokenizer.model",
        "model-00001-of-00004.safetensors",
        "pytorch_model-00001-of-00004.bin",
        "consolidated.safetensors",
        "code.py",
    ]
    taken = list(huggingface_hub.utils.filter_repo_objects(names, allow_patterns=options["allow_patterns"]))
    assert taken == names[: 4 if wanted else 3]
