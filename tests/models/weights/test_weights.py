"""Weights in and out: folders of transformers, LAVIS's checkpoints, and the folder that we export."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
import transformers
import yaml
from lavis.models import load_model
from lavis.models.blip2_models.Qformer import BertLMHeadModel, BertPreTrainedModel
from lavis.models.eva_vit import VisionTransformer, interpolate_pos_embed
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import BertConfig, InstructBlipForConditionalGeneration

from ealign_plugin.errors import UserError
from ealign_plugin.models import InstructBlip
from ealign_plugin.models import llava as _registered  # noqa: F401
from ealign_plugin.models.cost.shapes import shape_of
from ealign_plugin.models.lora import state_without_lora
from ealign_plugin.models.meta import STAND_IN
from ealign_plugin.models.weights import export as exporting
from ealign_plugin.models.weights.export import export
from ealign_plugin.models.weights.hub import INDEX, fetch, load_tokenizer, read_config, shards
from ealign_plugin.models.weights.lavis import load_lavis_weights_into
from ealign_plugin.models.weights.loading import load_weights_into
from ealign_plugin.registered.processors import MEAN, STD, ImageProcessor

WITH_T5 = "ealign_instructblip with T5"
FAMILIES = ["ealign_instructblip", "ealign_llava", WITH_T5]
T5 = {
    **{"model_type": "t5", "vocab_size": 1280, "d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 2},
    **{"num_decoder_layers": 2, "num_heads": 4, "feed_forward_proj": "gated-gelu", "dropout_rate": 0.0},
    **{"tie_word_embeddings": False, "pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 0},
}


def micro(family: str) -> Any:
    """Type ``micro`` of a family, with random weights."""
    torch.manual_seed(11)
    if family != WITH_T5:
        return load_model(family, "micro", is_eval=True)
    with open(InstructBlip.PRETRAINED_MODEL_CONFIG_DICT["micro"], encoding="utf-8") as file:
        shape = shape_of(yaml.safe_load(file)["model"])
    return InstructBlip(config=shape | {"text_config": T5}, tokenizer=STAND_IN).eval()


def randomised(module: nn.Module, seed: int, scale: float = 0.3) -> nn.Module:
    """Biases and norms too: what is zero or one at first would hide a mistake."""
    generator = torch.Generator().manual_seed(seed)
    for value in module.parameters():
        value.data = torch.randn(value.shape, generator=generator) * scale
    return module.eval()


@pytest.fixture
def fresh() -> Any:
    """A micro model of its own, to be changed."""
    torch.manual_seed(3)
    return load_model("ealign_instructblip", "micro", is_eval=True)


@pytest.fixture(scope="module")
def saved(tmp_path_factory, model) -> tuple[Path, dict[str, torch.Tensor]]:
    """A folder of transformers' own, and the weights in it."""
    hf = randomised(InstructBlipForConditionalGeneration(model.config), seed=1)
    folder = tmp_path_factory.mktemp("saved")
    hf.save_pretrained(folder, max_shard_size="2MB")
    assert (folder / INDEX).is_file()
    return folder, hf.state_dict()


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    """A copy of ``saved``, to be spoilt."""
    return Path(shutil.copytree(saved[0], tmp_path / "folder"))


def equal(model: nn.Module, state: dict[str, torch.Tensor]) -> bool:
    own = model.state_dict()
    return own.keys() == state.keys() and all(torch.equal(own[name], state[name]) for name in own)


def rewritten(folder: Path, change: Any) -> Path:
    """The weights of a folder in one file, after ``change(weights)``."""
    content: dict[str, torch.Tensor] = {}
    for path in shards(folder):
        content |= load_file(path)
        path.unlink()
    (folder / INDEX).unlink(missing_ok=True)
    save_file(change(content), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


# Folders of transformers


def test_a_folder_of_several_shards_fills_the_model(fresh, saved):
    load_weights_into(fresh, saved[0])
    assert equal(fresh, saved[1])


def test_filling_a_model_in_half_precision_keeps_its_precision(fresh, saved):
    load_weights_into(fresh.to(torch.bfloat16), saved[0])
    assert equal(fresh, {name: value.to(torch.bfloat16) for name, value in saved[1].items()})


def newer_names(content: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As a class with an inner ``model`` writes them: the head apart, the LLM without its own class."""
    renamed = {}
    for name, value in content.items():
        if name.startswith("language_model.lm_head."):
            renamed[name.removeprefix("language_model.")] = value
        else:
            renamed["model." + name.replace("language_model.model.", "language_model.")] = value
    return renamed


@pytest.mark.parametrize("tied", [True, False])
def test_names_of_newer_versions_are_understood(fresh, saved, folder, tied):
    head = "language_model.lm_head.weight"

    def change(content):
        if not tied:  # a file may spell tied weights out
            content[head] = content["language_model.model.embed_tokens.weight"].clone()
        return newer_names(content)

    load_weights_into(fresh, rewritten(folder, change))
    assert equal(fresh, saved[1])


def test_buffers_that_older_versions_saved_are_passed_over(fresh, saved, folder):
    extra = {
        "qformer.embeddings.position_ids": torch.arange(4),
        "language_model.model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4),
    }
    load_weights_into(fresh, rewritten(folder, lambda content: content | extra))
    assert equal(fresh, saved[1])


def test_a_language_model_given_apart(fresh, saved, tmp_path):
    """From a folder of the causal LM alone; the rest keeps what it holds."""
    before = {name: value.clone() for name, value in fresh.vision_model.state_dict().items()}
    llm = randomised(transformers.AutoModelForCausalLM.from_config(fresh.config.text_config), seed=5)
    llm.save_pretrained(tmp_path / "llm")
    load_weights_into(fresh.language_model, tmp_path / "llm")
    assert equal(fresh.language_model, llm.state_dict())
    assert equal(fresh.vision_model, before)


def test_a_head_of_its_own_where_the_model_ties_it(fresh, saved, folder):
    """Flan-T5's under transformers 5, which ties every T5."""
    head = torch.randn(1280, 128)
    rewritten(folder, lambda content: content | {"language_model.lm_head.weight": head})
    load_weights_into(fresh, folder)
    assert equal(fresh, saved[1] | {"language_model.lm_head.weight": head})


def test_parts_left_out_keep_what_they_hold(fresh, saved, folder):
    without_llm = {n: v for n, v in saved[1].items() if not n.startswith("language_model.")}
    before = {name: value.clone() for name, value in fresh.language_model.state_dict().items()}
    rewritten(folder, lambda content: {name: content[name] for name in without_llm})
    load_weights_into(fresh, folder, without=["language_model"])
    assert equal(fresh, without_llm | {f"language_model.{name}": value for name, value in before.items()})


def test_a_vocabulary_with_tokens_added(fresh, saved, folder):
    name = "language_model.model.embed_tokens.weight"
    rewritten(folder, lambda content: content | {name: content[name][:-2].clone()})
    last = fresh.state_dict()[name][-2:].clone()
    with pytest.raises(UserError, match=r"embed_tokens.weight \[1278, 128\] where \[1280, 128\] is expected"):
        load_weights_into(fresh, folder, added_tokens=1)
    load_weights_into(fresh, folder, added_tokens=2)
    assert torch.equal(fresh.state_dict()[name], torch.cat([saved[1][name][:-2], last]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: {n: v for n, v in c.items() if n != "query_tokens"}, "1 missing, 0 unknown, 0 of another"),
        (lambda c: c | {"qformer.strange": torch.ones(1)}, "0 missing, 1 unknown.*qformer.strange"),
        (
            lambda c: c | {"query_tokens": c["query_tokens"][:, :4].clone()},
            r"0 missing, 0 unknown, 1 of another shape.*query_tokens \[1, 4, 128\] where \[1, 8, 128\]",
        ),
    ],
)
def test_weights_of_another_model_are_refused_and_change_nothing(fresh, folder, change, message):
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    with pytest.raises(UserError, match=message) as error:
        load_weights_into(fresh, rewritten(folder, change))
    assert str(folder) in str(error.value) and "model.model_type" in str(error.value)
    assert equal(fresh, before)


def spoil_index(folder):
    (folder / INDEX).write_text('{"weight_map": {"query_tokens": "../model.safetensors"}}')


def cut_shard(folder):
    path = shards(folder)[-1]
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: shards(f)[-1].unlink(), "which is missing there"),
        (lambda f: (f / INDEX).write_text("[1]"), "no index of weights"),
        (spoil_index, "'../model.safetensors', which is missing there"),
        (cut_shard, "it is no safetensors file"),
    ],
)
def test_a_spoilt_folder_is_told_in_one_line(fresh, folder, spoil, message):
    spoil(folder)
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    with pytest.raises(UserError, match=message) as error:
        load_weights_into(fresh, folder)
    assert "\n" not in str(error.value)
    assert equal(fresh, before)


def test_pickles_are_never_read(fresh, tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(UserError, match="only pickled weights found.*save_pretrained"):
        load_weights_into(fresh, tmp_path)
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(UserError, match="no model.safetensors"):
        load_weights_into(fresh, tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file"),
        ("{", "not readable as JSON"),
        ('["model_type"]', "model_type None found"),
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


@pytest.mark.parametrize("source", ["/no/such/folder", "no_such_folder", "./a/b", "a/b/c", ""])
def test_neither_a_folder_nor_a_hub_id(source):
    with pytest.raises(UserError, match="model.llm: .*no such folder; expected a folder with config.json"):
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


# LAVIS


# Else transformers 5 does not build the host's Q-Former.
BertPreTrainedModel.all_tied_weights_keys = {}


class Lavis(nn.Module):
    """The host's InstructBLIP up to the language model, built as `Blip2Base` builds it, small."""

    def __init__(self, config: Any, image_size: int, text_layers: bool = True) -> None:
        super().__init__()
        vision, qformer = config.vision_config, config.qformer_config
        self.visual_encoder = VisionTransformer(
            img_size=image_size,
            patch_size=vision.patch_size,
            use_mean_pooling=False,
            embed_dim=vision.hidden_size,
            depth=vision.num_hidden_layers,
            num_heads=vision.num_attention_heads,
            mlp_ratio=vision.intermediate_size / vision.hidden_size,
            qkv_bias=True,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
        )
        self.ln_vision = nn.LayerNorm(vision.hidden_size)
        bert = BertConfig(
            vocab_size=qformer.vocab_size,
            hidden_size=qformer.hidden_size,
            num_hidden_layers=qformer.num_hidden_layers,
            num_attention_heads=qformer.num_attention_heads,
            intermediate_size=qformer.intermediate_size,
            max_position_embeddings=qformer.max_position_embeddings,
        )
        bert.encoder_width = vision.hidden_size
        bert.add_cross_attention = True
        bert.cross_attention_freq = qformer.cross_attention_frequency
        bert.query_length = config.num_query_tokens
        self.Qformer = BertLMHeadModel(bert)
        self.query_tokens = nn.Parameter(torch.zeros(1, config.num_query_tokens, qformer.hidden_size))
        self.llm_proj = nn.Linear(qformer.hidden_size, config.text_config.hidden_size)

    @torch.no_grad()
    def image_tokens(self, images: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """As `Blip2VicunaInstruct.forward` of LAVIS's repository computes them."""
        features = self.ln_vision(self.visual_encoder(images))
        queries = self.query_tokens.expand(len(images), -1, -1)
        output = self.Qformer.bert(
            ids,
            attention_mask=torch.cat([mask.new_ones(queries.shape[:2]), mask], dim=1),
            query_embeds=queries,
            encoder_hidden_states=features,
            encoder_attention_mask=mask.new_ones(features.shape[:2]),
            return_dict=True,
        )
        return self.llm_proj(output.last_hidden_state[:, : queries.shape[1]])


QUESTIONS = ["Who is on the photo? Name them all, with commas between.", "Where?"]


def question_ids(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    rows = [[model.tokenizer.bos_token_id, *ids] for ids in model.ids(QUESTIONS)]
    width = max(map(len, rows))
    assert len(rows[0]) > len(rows[1])  # the second is padded
    ids = torch.tensor([row + [model.tokenizer.pad_token_id] * (width - len(row)) for row in rows])
    return ids, torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])


@pytest.mark.skipif(
    not hasattr(transformers.PreTrainedModel, "invert_attention_mask"),
    reason="the host's Q-Former does not run on transformers 5",
)
@pytest.mark.parametrize("image_size", [64, 48])
@pytest.mark.parametrize("split", [False, True])
def test_lavis_and_our_model_filled_from_it_give_the_same_image_tokens(fresh, tmp_path, image_size, split):
    """Also from position embeddings of another size, and with the image encoder in a file of its own."""
    lavis = randomised(Lavis(fresh.config, image_size), seed=7)
    state = lavis.state_dict()
    assert state["visual_encoder.blocks.0.attn.q_bias"].abs().max() > 0.1
    language_model = {name: value.clone() for name, value in fresh.language_model.state_dict().items()}
    files = [tmp_path / "instruct_blip.pth"]
    if split:
        encoder = {
            name.removeprefix("visual_encoder."): state.pop(name)
            for name in list(state)
            if name.startswith("visual_encoder.")
        }
        extra = {
            "blocks.2.norm1.weight": torch.ones(128),
            "head.weight": torch.ones(3),
            "norm.bias": torch.ones(1),
        }
        torch.save(encoder | extra, tmp_path / "eva_vit_g.pth")
        files.append(tmp_path / "eva_vit_g.pth")
    torch.save({"model": state, "epoch": 3, "config": {"run": {"seed": 1}}}, files[0])
    load_lavis_weights_into(fresh, files)

    if image_size != 64:  # LAVIS's own way to another image size
        encoder = {k: v.clone() for k, v in lavis.visual_encoder.state_dict().items()}
        lavis.visual_encoder = Lavis(fresh.config, 64).visual_encoder
        interpolate_pos_embed(lavis.visual_encoder, encoder)
        lavis.visual_encoder.load_state_dict(encoder)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    wanted = lavis.eval().image_tokens(images, *question_ids(fresh))
    with torch.no_grad():
        found = fresh.image_tokens(fresh.encode_images(images), QUESTIONS)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)
    assert wanted.std() > 0.1 and (wanted[0] - wanted[1]).abs().max() > 0.1
    assert equal(fresh.language_model, language_model)


def test_a_lavis_checkpoint_with_its_language_model(fresh, tmp_path):
    state = randomised(Lavis(fresh.config, 64), seed=7).state_dict()
    llm = randomised(
        transformers.AutoModelForCausalLM.from_config(fresh.config.text_config), seed=5
    ).state_dict()
    torch.save(
        {"model": state | {f"llm_model.{name}": value for name, value in llm.items()}}, tmp_path / "x.pth"
    )
    load_lavis_weights_into(fresh, [tmp_path / "x.pth"])
    assert equal(fresh.language_model, llm)


@pytest.mark.parametrize(
    ("leave_out", "message"),
    [
        ("visual_encoder.", "it holds no image encoder: give LAVIS's eva_vit_g.pth"),
        ("llm_proj.", "2 missing, 0 unknown"),
        ("Qformer.bert.encoder.layer.0.intermediate.", "2 missing.*qformer.encoder.layer.0.intermediate"),
    ],
)
def test_a_lavis_checkpoint_that_lacks_something(fresh, tmp_path, leave_out, message):
    state = Lavis(fresh.config, 64).state_dict()
    torch.save({n: v for n, v in state.items() if not n.startswith(leave_out)}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=message):
        load_lavis_weights_into(fresh, [tmp_path / "x.pth"])


class Evil:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("harm"),))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: torch.save({"model": {}, "x": Evil()}, path), "not a file of tensors alone"),
        (lambda path: path.write_bytes(b"PK but no zip"), "not a file of tensors alone"),
        (lambda path: torch.save({"model": {"epoch": 1}}, path), "no weights found"),
        (lambda path: torch.save([1], path), "no weights found"),
        (lambda path: None, "no such file"),
    ],
)
def test_a_file_that_is_no_checkpoint(fresh, tmp_path, monkeypatch, write, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "x.pth")
    with pytest.raises(UserError, match=message) as error:
        load_lavis_weights_into(fresh, [tmp_path / "x.pth"])
    assert "\n" not in str(error.value)
    assert not Path("harm").exists()


# Export


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
