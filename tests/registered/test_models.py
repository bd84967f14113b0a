"""The families under their names in LAVIS."""

import copy
import pickle

import pytest
from lavis.common.registry import registry
from lavis.models import load_model, load_model_and_preprocess, model_zoo
from lavis.models.base_model import BaseModel
from PIL import Image

from ealign_plugin.errors import UserError
from ealign_plugin.models import InstructBlip, Llava
from ealign_plugin.models.base import NewsModel
from ealign_plugin.registered.models import join
from ealign_plugin.registered.processors import ImageProcessor, TextProcessor
from ealign_plugin.registry import Registry

NAMES = {"ealign_instructblip": InstructBlip, "ealign_llava": Llava}


@pytest.mark.parametrize("name", NAMES)
def test_lavis_builds_a_class_that_is_the_family_and_its_own(name):
    cls = registry.get_model_class(name)
    assert issubclass(cls, NAMES[name]) and issubclass(cls, NewsModel) and issubclass(cls, BaseModel)
    model = load_model(name, "micro", is_eval=True)
    assert type(model) is cls
    assert model.show_n_params().endswith("M")
    assert dict(model_zoo)[name] == list(NAMES[name].PRETRAINED_MODEL_CONFIG_DICT)


def test_the_processors_come_with_the_model():
    model, images, texts = load_model_and_preprocess("ealign_llava", "micro")
    assert isinstance(model, Llava)
    assert set(images) == set(texts) == {"train", "eval"}


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_model_can_be_copied_and_pickled(copied):
    model = load_model("ealign_llava", "micro", is_eval=True)
    twin = copied(model)
    assert type(twin) is type(model)
    assert all((twin.state_dict()[name] == value).all() for name, value in model.state_dict().items())


def test_a_family_that_is_registered_later_is_known_to_lavis_at_once(monkeypatch):
    monkeypatch.setitem(registry.mapping, "model_name_mapping", dict(registry.mapping["model_name_mapping"]))
    families = Registry("model family")
    families.subscribe(join)

    class Later(Llava):
        pass

    families.register("ealign_test_family", Later)
    assert issubclass(registry.get_model_class("ealign_test_family"), Later)
    assert "ealign_test_family" in dict(model_zoo)
    model = load_model("ealign_test_family", "micro")
    assert isinstance(model, Later)
    assert type(pickle.loads(pickle.dumps(model))) is type(model)


def test_lavis_lists_and_loads_instructblip():
    types = ["micro", "smol", "vicuna7b", "vicuna13b", "flant5xl", "flant5xxl"]
    assert dict(model_zoo)["ealign_instructblip"] == types
    model, images, texts = load_model_and_preprocess("ealign_instructblip", "micro", is_eval=True)
    assert isinstance(model, InstructBlip) and not model.training
    assert {split: type(processor) for split, processor in images.items()} == dict.fromkeys(
        ("train", "eval"), ImageProcessor
    )
    assert {type(processor) for processor in texts.values()} == {TextProcessor}
    picture = images["eval"](Image.new("L", (300, 200), 90))
    answers = model.generate({"image": picture[None], "prompt": texts["eval"]("Who \n is it?")}, max_length=3)
    assert [type(answer) for answer in answers] == [str]


def test_an_unknown_type_is_an_error_that_lists_what_there_is():
    with pytest.raises(UserError, match="unknown model type 'giant'; expected one of flant5xl, flant5xxl"):
        load_model("ealign_instructblip", "giant")


def test_lavis_lists_and_loads_llava():
    assert dict(model_zoo)["ealign_llava"] == ["micro", "llava1.5_7b", "llava1.5_13b"]
    model, images, texts = load_model_and_preprocess("ealign_llava", "micro", is_eval=True)
    assert isinstance(model, Llava) and not model.training
    assert {type(processor) for processor in images.values()} == {ImageProcessor}
    assert {type(processor) for processor in texts.values()} == {TextProcessor}
    picture = images["eval"](Image.new("L", (300, 200), 90))
    answers = model.generate({"image": picture[None], "prompt": texts["eval"]("Who \n is it?")}, max_length=3)
    assert [type(answer) for answer in answers] == [str]
