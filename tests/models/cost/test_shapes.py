"""Shapes without weights: parameters beside those of the model, and published sizes."""

import pytest
import yaml

from ealign_plugin.errors import UserError
from ealign_plugin.models.cost.shapes import SHAPES, on_meta, parameters, shape_of
from tests.models.cost.factories import ARCHS, family


def test_parameters_are_those_of_the_model(pair):
    real, meta = pair
    total, trained = parameters(meta)
    assert sum(total.values()) == sum(p.numel() for p in real.parameters())
    assert sum(trained.values()) == sum(p.numel() for p in real.parameters() if p.requires_grad) > 0
    vision = [getattr(real, name) for name in real.PARTS["vision"]]
    assert total["vision"] == sum(p.numel() for module in vision for p in module.parameters())
    assert all(p.is_meta for p in meta.parameters())


# Published sizes, in 10⁹: Vicuna (LLaMA, arXiv 2302.13971), Flan-T5 (arXiv 2210.11416), EVA ViT-g and the
# Q-Former (BLIP-2, arXiv 2301.12597), CLIP (arXiv 2103.00020). transformers 5 ties the head of every T5.
EVA = {"vision": 0.986, "connector": 0.188}
CLIP = {"vision": 0.3035, "connector": 0.021}
PUBLISHED = {
    "Salesforce/instructblip-vicuna-7b": EVA | {"llm": 6.738},
    "Salesforce/instructblip-vicuna-13b": EVA | {"llm": 13.016, "connector": 0.19},
    "Salesforce/instructblip-flan-t5-xl": EVA | {"llm": 2.85},
    "Salesforce/instructblip-flan-t5-xxl": EVA | {"llm": 11.135},
    "llava-hf/llava-1.5-7b-hf": CLIP | {"llm": 6.739},
    "llava-hf/llava-1.5-13b-hf": CLIP | {"llm": 13.016, "connector": 0.0315},
}


def arch_of(source: str) -> str:
    return "ealign_llava" if "llava" in source else "ealign_instructblip"


@pytest.mark.parametrize("source", PUBLISHED)
def test_published_sizes(source):
    shape = shape_of({"arch": arch_of(source), "pretrained": source})
    total, _ = parameters(on_meta(family(arch_of(source)), shape))
    assert {part: count / 1e9 for part, count in total.items()} == pytest.approx(PUBLISHED[source], rel=0.025)


def test_every_type_that_is_downloaded_has_its_shape():
    shapes = yaml.safe_load(SHAPES.read_text(encoding="utf-8"))
    assert set(shapes) == set(PUBLISHED)
    for arch in ARCHS:
        for path in family(arch).PRETRAINED_MODEL_CONFIG_DICT.values():
            with open(path, encoding="utf-8") as file:
                section = yaml.safe_load(file)["model"]
            assert "text_config" in section or section["pretrained"] in shapes


def test_a_folder_goes_before_what_is_published(tmp_path, shape):
    transformers = pytest.importorskip("transformers")
    config = {**shape, "num_query_tokens": 5}
    transformers.InstructBlipConfig(**config).save_pretrained(tmp_path)
    found = shape_of({"arch": "ealign_instructblip", "pretrained": str(tmp_path), "text_config": {}})
    assert found["num_query_tokens"] == 5


def test_an_unknown_hub_id_without_a_hub():
    with pytest.raises(UserError, match="model.pretrained: 'nobody/nothing'"):
        shape_of({"arch": "ealign_instructblip", "pretrained": "nobody/nothing"})
