"""Pictures to tensors, texts to texts."""

import io
import string

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lavis.common.registry import registry
from omegaconf import OmegaConf
from PIL import Image
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from ealign_plugin.errors import UserError
from ealign_plugin.images import open_image
from ealign_plugin.registered.processors import MEAN, STD, ImageProcessor, TextProcessor

PLAIN = {"mean": (0, 0, 0), "std": (1, 1, 1)}


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_any_picture_becomes_three_channels(mode):
    picture = ImageProcessor(32)(Image.new(mode, (50, 20)))
    assert picture.shape == (3, 32, 32)
    assert picture.dtype == torch.float32


def test_normalised_by_clip_s_constants():
    assert (list(MEAN), list(STD)) == (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)
    picture = ImageProcessor(8)(Image.new("RGB", (9, 9), (255, 0, 51)))
    for channel, value, mean, std in zip(picture, (1.0, 0.0, 0.2), MEAN, STD, strict=True):
        torch.testing.assert_close(channel, torch.full((8, 8), (value - mean) / std))


def test_both_edges_of_a_wide_picture_stay():
    wide = Image.new("RGB", (300, 100), "lime")
    wide.paste("red", (0, 0, 20, 100))
    wide.paste("blue", (280, 0, 300, 100))
    picture = ImageProcessor(60, **PLAIN)(wide)
    red, lime, blue = picture[:, 30, 0], picture[:, 30, 30], picture[:, 30, -1]
    torch.testing.assert_close(
        torch.stack([red, lime, blue]), torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    )


def test_decode_margin_says_how_small_a_jpeg_may_be_decoded():
    assert ImageProcessor(64).decode_size is None
    small, whole = ImageProcessor(64, decode_margin=2), ImageProcessor(64)
    assert small.decode_size == 128
    file = io.BytesIO()
    Image.radial_gradient("L").resize((1024, 512)).save(file, "JPEG")
    image = open_image(file.getvalue(), "gradient", small.decode_size)
    assert image.size == (256, 128)
    original = open_image(file.getvalue(), "gradient", whole.decode_size)
    assert original.size == (1024, 512)
    assert (small(image) - whole(original)).abs().mean() < 0.02


def test_from_config():
    config = OmegaConf.create({"name": "ealign_image", "image_size": 16, **PLAIN, "decode_margin": 1.5})
    processor = registry.get_processor_class("ealign_image").from_config(config)
    assert isinstance(processor, ImageProcessor)
    assert (processor.image_size, processor.mean, processor.std) == (16, [0, 0, 0], [1, 1, 1])
    assert processor.decode_size == 24
    assert processor(Image.new("RGB", (9, 9), "white")).eq(1).all()


def test_defaults_without_a_config():
    assert ImageProcessor.from_config().image_size == 224
    assert ImageProcessor.from_config(OmegaConf.create({"name": "ealign_image"})).mean == list(MEAN)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ealign_image", "unknown key size, expected image_size, mean, std, decode_margin"),
        ("ealign_text", "unknown key size, expected none"),
    ],
)
def test_an_unknown_argument_is_named(name, message):
    with pytest.raises(UserError, match=f"processor {name}: {message}"):
        registry.get_processor_class(name).from_config(OmegaConf.create({"name": name, "size": 3}))


def test_a_text_keeps_case_and_punctuation():
    processor = registry.get_processor_class("ealign_text").from_config(
        OmegaConf.create({"name": "ealign_text"})
    )
    assert isinstance(processor, TextProcessor)
    text = "  U.N. chief  Zoë O'Neill\n\tin “São\u00a0Paulo”, 3 May. "
    assert processor(text) == "U.N. chief Zoë O'Neill in “São Paulo”, 3 May."


@given(st.text())
def test_only_white_space_changes(text):
    processed = TextProcessor()(text)
    assert processed.split() == text.split()
    assert "  " not in processed and processed == processed.strip()
    assert TextProcessor()(processed) == processed


def test_a_text_of_200_words_is_not_cut():
    text = " ".join(string.ascii_letters[i % 52] * 5 for i in range(200))
    assert TextProcessor()(text) == text
