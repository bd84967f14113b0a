"""What the start-up hook mends in timm, for us and for a user who imports plain transformers beside LAVIS."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from ealign_plugin.host.startup import ealign_startup as startup

LLAVA = """
import sys
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

layer = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
vision = CLIPVisionConfig(image_size=8, patch_size=4, **layer)
text = LlamaConfig(vocab_size=16, **layer)
config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=15)
LlavaForConditionalGeneration(config).save_pretrained(sys.argv[1])
model = LlavaForConditionalGeneration.from_pretrained(sys.argv[1])
from timm.data import infer_imagenet_subset
print(type(model).__name__, infer_imagenet_subset({}), [name for name in sys.modules if "ealign" in name])
"""


def test_plain_transformers_reads_a_llava_folder(installed, run_python, tmp_path):
    done = run_python("-c", LLAVA, str(tmp_path / "llava"), python=installed("regular"))
    assert done.stdout.strip() == "LlavaForConditionalGeneration None ['ealign_startup']", done.stderr


def test_a_timm_that_has_the_names_keeps_them():
    newer = SimpleNamespace(ImageNetInfo=object(), infer_imagenet_subset=object())
    before = dict(vars(newer))
    startup.mend_timm(newer)
    assert vars(newer) == before


@pytest.mark.parametrize("name", ["ImageNetInfo", "infer_imagenet_subset"])
def test_a_timm_imported_before_the_finder_is_mended_too(name, monkeypatch):
    others = [finder for finder in sys.meta_path if type(finder).__name__ != "HostFinder"]
    monkeypatch.setattr(sys, "meta_path", others)
    data = ModuleType("timm.data")
    monkeypatch.setitem(sys.modules, "timm.data", data)
    startup.install()
    assert hasattr(data, name)
