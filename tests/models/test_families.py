"""From the section of a config to a model, without LAVIS."""

import sys

import pytest
import yaml

from ealign_plugin.errors import UserError
from ealign_plugin.models import InstructBlip, Llava
from ealign_plugin.models.families import FAMILIES, build_model, register_family
from ealign_plugin.models.section import defaults_of, merged, plain
from ealign_plugin.registry import Registry


def test_the_families_of_the_package_are_there():
    assert dict(FAMILIES.items()) == {"ealign_instructblip": InstructBlip, "ealign_llava": Llava}


def test_the_type_gives_what_the_section_leaves_out():
    model = build_model({"arch": "ealign_llava", "model_type": "micro", "text_config": {"hidden_size": 64}})
    assert type(model) is Llava
    assert model.config.text_config.hidden_size == 64
    assert model.config.text_config.intermediate_size == 384
    assert model.max_txt_len == 512


def test_a_section_that_is_whole_needs_no_type():
    section = defaults_of(Llava.PRETRAINED_MODEL_CONFIG_DICT, "micro")
    del section["model_type"]
    assert build_model(section | {"max_txt_len": 300}).max_txt_len == 300


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            {"arch": "ealign_lava"},
            "model.arch: unknown model family 'ealign_lava'; did you mean 'ealign_llava'? Expected one of "
            "ealign_instructblip, ealign_llava",
        ),
        ({}, "model.arch: unknown model family 'None'; expected one of ealign_instructblip, ealign_llava"),
        (
            {"arch": "ealign_llava", "model_type": "mikro"},
            "model.model_type: unknown model type 'mikro'; did you mean 'micro'?",
        ),
    ],
)
def test_unknown_names(section, message):
    with pytest.raises(UserError) as error:
        build_model(section)
    assert str(error.value) == message


def test_a_family_of_another_package(monkeypatch, tmp_path):
    """A subclass with a YAML file of its own is all that `build_model` needs."""
    monkeypatch.setattr(sys.modules["ealign_plugin.models.families"], "FAMILIES", Registry("model family"))
    config = {"model": defaults_of(Llava.PRETRAINED_MODEL_CONFIG_DICT, "micro") | {"max_txt_len": 99}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config))

    @register_family("other_llava")
    class OtherLlava(Llava):
        PRETRAINED_MODEL_CONFIG_DICT = {"tiny": str(tmp_path / "tiny.yaml")}

    model = build_model({"arch": "other_llava", "model_type": "tiny"})
    assert type(model) is OtherLlava and model.max_txt_len == 99
    assert type(OtherLlava.from_pretrained("tiny")) is OtherLlava


def test_references_in_a_section_are_resolved():
    assert plain({"a": 3, "b": {"c": "${a}", "d": [1, "x"]}}) == {"a": 3, "b": {"c": 3, "d": [1, "x"]}}


def test_changes_replace_lists_and_null_counts():
    assert merged({"a": {"b": 1}, "c": [1]}, {"a": None, "c": [2, 3]}) == {"a": None, "c": [2, 3]}
    assert merged({"a": None}, {"a": {"b": 1}}) == {"a": {"b": 1}}


def test_the_families_do_without_lavis(run_python):
    code = (
        "import sys; from ealign_plugin.models.families import build_model; "
        "build_model({'arch': 'ealign_llava', 'model_type': 'micro'}); print('lavis' in sys.modules)"
    )
    done = run_python("-c", code)
    assert done.stdout.strip() == "False", done.stderr
