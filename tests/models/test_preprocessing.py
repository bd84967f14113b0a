"""Pictures as models read them, without LAVIS."""

import pytest
import torch
from PIL import Image

from ealign_plugin.errors import UserError
from ealign_plugin.models.preprocessing import ImageProcessor, image_processor_from
from ealign_plugin.registered import processors


def test_a_section_of_a_config_makes_it():
    made = image_processor_from({"name": "ealign_image", "image_size": 16, "decode_margin": 2})
    assert (made.image_size, made.decode_size) == (16, 32)
    registered = processors.ImageProcessor(16, decode_margin=2)
    picture = Image.radial_gradient("L")
    assert torch.equal(made(picture), registered(picture))
    assert vars(made) == vars(registered)  # by which an interrupted evaluation knows it again


def test_other_names_and_arguments_are_refused():
    with pytest.raises(UserError, match="'blip_image_eval' found, expected 'ealign_image'"):
        image_processor_from({"name": "blip_image_eval"})
    with pytest.raises(UserError, match="processor ealign_image: unknown key size, expected image_size"):
        image_processor_from({"name": "ealign_image", "size": 3})
    assert isinstance(image_processor_from({"name": "ealign_image"}), ImageProcessor)
