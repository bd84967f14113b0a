"""The folder that we export: transformers alone writes the same caption from it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torch import nn

from ealign_plugin.errors import UserError
from ealign_plugin.models.lora import state_without_lora
from ealign_plugin.models.weights import export as exporting
from ealign_plugin.models.weights.export import export
from ealign_plugin.models.weights.loading import load_weights_into
from ealign_plugin.registered.processors import MEAN, STD, ImageProcessor
from tests.models.weights.factories import WITH_T5, equal, micro

FAMILIES = ["ealign_instructblip", "ealign_llava", WITH_T5]


def photo() -> Image.Image:
    pixels = np.random.default_rng(4).integers(0, 256, (50, 90, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def prompt_of(family: str, instruction: str) -> str:
    return f"USER: <image>\n{instruction} ASSISTANT:" if family == "ealign_llava" else instruction


def plain_class(family: str) -> Any:
    name = "Llava" if family == "ealign_llava" else "InstructBlip"
    return getattr(transformers, f"{name}ForConditionalGeneration")


def read_alone(family: str, folder: Path, instruction: str, adapter: bool = False) -> str:
    """The caption of the photo by transformers alone, from the exported folder."""
    processor = transformers.AutoProcessor.from_pretrained(folder)
    plain = plain_class(family).from_pretrained(folder, torch_dtype=torch.float32).eval()
    if adapter:
        from peft import PeftModel

        plain = PeftModel.from_pretrained(plain, folder / exporting.ADAPTER).eval()
    inputs = processor(images=photo(), text=prompt_of(family, instruction), return_tensors="pt")
    output = plain.generate(**inputs, do_sample=False, num_beams=1, max_new_tokens=12, min_new_tokens=12)
    # An encoder-decoder's answer begins with a token of its own, the others' with the prompt.
    length = 1 if plain.config.text_config.is_encoder_decoder else inputs["input_ids"].shape[1]
    assert output.shape[1] == length + 12
    return processor.batch_decode(output[:, length:], skip_special_tokens=True)[0].strip()


def caption(model: Any, instruction: str) -> str:
    image = ImageProcessor(image_size=model.config.vision_config.image_size)(photo())[None]
    samples = {"image": image, "instruction": [instruction]}
    return model.generate(samples, num_beams=1, max_length=12, min_length=12)[0]


INSTRUCTION = "Article: The mayor of Oslo spoke on 3 May. Write the caption of the photo."


@pytest.fixture(params=FAMILIES)
def trained(request) -> Any:
    """A micro model with weights that are far from their beginning."""
    model = micro(request.param)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn_like(value) * 0.05)
    model.family = request.param
    return model


def test_an_export_gives_the_same_caption_in_plain_transformers(trained, tmp_path):
    export(trained, tmp_path / "out", mean=MEAN, std=STD)
    wanted = caption(trained, INSTRUCTION)
    assert len(wanted) > 8
    assert read_alone(trained.family, tmp_path / "out", INSTRUCTION) == wanted
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    modes = {path.stat().st_mode for path in (tmp_path / "out").glob("*.*")}
    assert len(modes) == 1, "weights can be read by whoever can read the config"


def test_an_export_fills_a_model_again(trained, tmp_path):
    export(trained, tmp_path / "out", mean=MEAN, std=STD)
    state = {name: value.clone() for name, value in trained.state_dict().items()}
    for value in trained.parameters():
        value.data.zero_()
    load_weights_into(trained, tmp_path / "out")
    assert equal(trained, state)


def test_an_image_token_that_the_vocabulary_lacks_gets_a_row(trained, tmp_path):
    size = trained.config.text_config.vocab_size
    backend = trained.tokenizer.backend_tokenizer
    other = type(backend).from_str(backend.to_str().replace('"<image>"', '"<picture>"'))
    other.add_tokens([f"<filler {i}>" for i in range(size - other.get_vocab_size())])
    trained.tokenizer = type(trained.tokenizer)(
        tokenizer_object=other,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        add_prefix_space=True,
        split_special_tokens=True,
    )
    wanted = caption(trained, INSTRUCTION)
    export(trained, tmp_path / "out", mean=MEAN, std=STD)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["image_token_index"] == size
    assert read_alone(trained.family, tmp_path / "out", INSTRUCTION) == wanted


@pytest.fixture
def adapted(trained) -> Any:
    """The same with LoRA that does something."""
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj", "q", "wo"])
    peft.inject_adapter_in_model(config, trained.language_model)
    generator = torch.Generator().manual_seed(3)
    for name, value in trained.named_parameters():
        if ".lora_" in name:
            value.data = torch.randn(value.shape, generator=generator) * 0.2
    return trained.eval()


@pytest.mark.parametrize("keep_lora", [False, True])
def test_an_export_with_lora(adapted, tmp_path, keep_lora):
    without = [n for n in state_without_lora(adapted, merge=False) if "lora" in n or "base_layer" in n]
    assert not without
    before = {name: value.clone() for name, value in adapted.state_dict().items()}
    export(adapted, tmp_path / "out", mean=MEAN, std=STD, keep_lora=keep_lora)
    assert equal(adapted, before)
    wanted = caption(adapted, INSTRUCTION)
    assert (tmp_path / "out" / "adapter").is_dir() == keep_lora
    assert read_alone(adapted.family, tmp_path / "out", INSTRUCTION, adapter=keep_lora) == wanted
    if keep_lora:
        assert read_alone(adapted.family, tmp_path / "out", INSTRUCTION) != wanted


def test_keeping_lora_where_there_is_none(model, tmp_path):
    with pytest.raises(UserError, match="the model has no LoRA"):
        export(model, tmp_path / "out", mean=MEAN, std=STD, keep_lora=True)


def test_weights_of_4_bits_are_not_exported(fresh, tmp_path):
    """bitsandbytes holds them as bytes."""
    layer = fresh.language_model.model.layers[0].mlp.up_proj
    layer.weight = nn.Parameter(torch.zeros(24576, 1, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(UserError, match="model.quantize: .*up_proj.weight is held in 4 bits"):
        export(fresh, tmp_path / "out", mean=MEAN, std=STD)
    assert not list(tmp_path.iterdir())


def test_an_export_never_overwrites(model, tmp_path):
    with pytest.raises(UserError, match="exists already"):
        export(model, tmp_path, mean=MEAN, std=STD)


def test_an_export_that_fails_leaves_nothing(model, tmp_path, monkeypatch):
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(transformers.InstructBlipProcessor, "save_pretrained", full)
    with pytest.raises(UserError, match="cannot be written .No space left"):
        export(model, tmp_path / "out", mean=MEAN, std=STD)
    assert not list(tmp_path.iterdir())
