"""InstructBLIP from LAVIS's own files, beside LAVIS's modules that the files were written from."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import transformers
import yaml
from lavis.models.eva_vit import interpolate_pos_embed
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, InstructBlipConfig

from ealign_plugin.errors import UserError
from ealign_plugin.models import InstructBlip, instructblip
from ealign_plugin.models.cost.shapes import on_meta, parameters, shape_of
from ealign_plugin.models.weights.lavis import load_lavis_weights_into
from tests.models.weights.factories import Lavis, equal, randomised

TYPES = {"llama": "vicuna7b", "t5": "flant5xl"}
PLAIN = {"dtype": "fp32", "vision_dtype": "fp32", "max_txt_len": 160}
QUESTIONS = ["Who is on the photo? Name them all, with commas between.", "Where?"]
END = 2  # </s>


class Given(NamedTuple):
    """What a user has fetched, and LAVIS's modules that the files were written from."""

    kind: str
    lavis: Lavis
    files: list[Path]
    language_model: Path
    questions: Path
    shape: Path

    def load(self, **changes: Any) -> InstructBlip:
        """The type's config with these files, in float32."""
        config = OmegaConf.load(InstructBlip.default_config_path(TYPES[self.kind])).model
        named = {
            "lavis_checkpoint": list(map(str, self.files)),
            "language_model": str(self.language_model),
            "qformer_tokenizer": str(self.questions),
            "pretrained": str(self.shape),
        }
        return InstructBlip.from_config(OmegaConf.merge(config, PLAIN, named, changes)).eval()

    def image_tokens(self, images: Tensor) -> Tensor:
        """LAVIS's, with the tokens of a BERT whose vocabulary has [DEC]."""
        tokenizer = AutoTokenizer.from_pretrained(self.questions)
        tokenizer.add_special_tokens({"bos_token": "[DEC]"})
        batch = tokenizer(QUESTIONS, padding=True, return_tensors="pt")
        assert batch["attention_mask"].min() == 0, "the second is padded"
        return self.lavis.image_tokens(images, batch["input_ids"], batch["attention_mask"])


@pytest.fixture
def given(hub_folder: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Given]:
    """``given("llama")`` or ``("t5")``: files of the test's own, to be spoilt."""

    def write(kind: str) -> Given:
        source = hub_folder(kind)
        shape = json.loads((source / "config.json").read_text())
        shape["qformer_config"]["vocab_size"] += 1  # [DEC]
        config = InstructBlipConfig(**shape)
        write_language_model(config.text_config, source, tmp_path / "llm")
        AutoTokenizer.from_pretrained(source / "qformer_tokenizer").save_pretrained(tmp_path / "bert")
        # The folder's own config knows better.
        shape["text_config"]["num_layers" if kind == "t5" else "num_hidden_layers"] = 5
        (tmp_path / "shape").mkdir()
        (tmp_path / "shape" / "config.json").write_text(json.dumps(shape))
        lavis = randomised(Lavis(config, config.vision_config.image_size), seed=7)
        files = [tmp_path / "instruct_blip_trimmed.pth", tmp_path / "eva_vit_g.pth"]
        write_lavis(lavis, kind, files)
        return Given(kind, lavis, files, tmp_path / "llm", tmp_path / "bert", tmp_path / "shape")

    return write


def write_language_model(config: Any, source: Path, folder: Path) -> None:
    """As Vicuna and Flan-T5 lie on the hub; the LLaMA's tokenizer has no token that pads."""
    tokenizer = AutoTokenizer.from_pretrained(source)
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    if not config.is_encoder_decoder:
        tokenizer.pad_token = None
    randomised(auto.from_config(config), seed=5).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_lavis(lavis: Lavis, kind: str, files: list[Path]) -> None:
    """Without the image encoder, which lies beside it."""
    state = {
        name.replace("llm_proj", "t5_proj" if kind == "t5" else "llm_proj"): value
        for name, value in lavis.state_dict().items()
    }
    encoder = {name: state.pop(name) for name in list(state) if name.startswith("visual_encoder.")}
    torch.save({"model": state, "epoch": 3}, files[0])
    torch.save({name.removeprefix("visual_encoder."): value for name, value in encoder.items()}, files[1])


def images_of_32() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def added_to(path: Path, more: dict[str, Tensor]) -> None:
    content = torch.load(path, weights_only=True)
    torch.save({"model": content["model"] | more}, path)


# What comes in


@pytest.mark.skipif(
    not hasattr(transformers.PreTrainedModel, "invert_attention_mask"),
    reason="the host's Q-Former does not run on transformers 5",
)
@pytest.mark.parametrize("kind", TYPES)
def test_image_tokens_are_those_of_lavis(given, kind):
    files = given(kind)
    model, images = files.load(), images_of_32()
    with torch.no_grad():
        found = model.image_tokens(model.encode_images(images), QUESTIONS)
    wanted = files.image_tokens(images)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)
    assert wanted.std() > 0.1 and (wanted[0] - wanted[1]).abs().max() > 0.1


@pytest.mark.parametrize("kind", TYPES)
def test_the_language_model_is_the_folder_s(given, kind):
    """LAVIS gives a LLaMA one token more, to pad with."""
    files = given(kind)
    own = files.load().language_model.state_dict()
    for name, value in load_file(files.language_model / "model.safetensors").items():
        more = own[name][len(value) :]
        assert own[name][: len(value)].equal(value)
        assert len(more) == (kind == "llama" and name.endswith(("embed_tokens.weight", "lm_head.weight")))
        assert not more.any()


def test_a_llama_s_texts_begin_and_end_with_the_same_token(given):
    model = given("llama").load()
    (prompt,), (target,), (plain,) = model.prompts(["Oslo"]), model.targets(["Oslo"]), model.ids(["Oslo"])
    assert prompt == [END, *plain] and target == [*plain, END]
    assert model.tokenizer.pad_token_id == model.config.text_config.vocab_size - 1
    assert END not in model.ids(["an article that spells </s>"])[0]


def test_a_t5_s_texts_and_vocabulary_stay_and_its_activation_is_exact(given):
    files = given("t5")
    model = files.load()
    (prompt,), (plain,) = model.prompts(["Oslo"]), model.ids(["Oslo"])
    assert prompt == [*plain, END]
    own = json.loads((files.language_model / "config.json").read_text())
    assert model.config.text_config.vocab_size == own["vocab_size"]
    layer = model.language_model.encoder.block[0].layer[-1].DenseReluDense
    values = torch.linspace(-3, 3, 50)
    torch.testing.assert_close(layer.act(values), torch.nn.functional.gelu(values), rtol=0, atol=0)


@pytest.mark.parametrize("kind", TYPES)
def test_it_writes_and_learns(given, kind):
    model = given(kind).load()
    samples = {"image": images_of_32(), "instruction": QUESTIONS, "target": ["Ana Lopez", "Oslo"]}
    written = model.generate(samples, num_beams=2, max_length=6, min_length=6)
    assert len(written) == 2 and all(written)
    model(samples)["loss"].backward()
    learning = {name for name, value in model.named_parameters() if value.grad is not None}
    assert {name.split(".")[0] for name in learning} == {"qformer", "query_tokens", "language_projection"}


def test_the_config_s_precision_wins_over_the_folder_s(given):
    """Vicuna's says float16."""
    files = given("llama")
    path = files.language_model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"torch_dtype": "float16"}))
    model = files.load(dtype="bf16", vision_dtype="bf16")
    assert {value.dtype for value in model.language_model.parameters()} == {torch.bfloat16}
    assert {value.dtype for value in model.vision_model.parameters()} == {torch.bfloat16}
    assert {value.dtype for value in model.qformer.parameters()} == {torch.float32}
    for name, buffer in files.load().language_model.named_buffers():
        assert model.language_model.get_buffer(name).equal(buffer)


@pytest.mark.parametrize("kind", TYPES)
def test_a_language_model_in_lavis_s_file_wins_over_the_folder_s(given, kind):
    files = given(kind)
    inner = {name: value + 1 for name, value in files.load().language_model.state_dict().items()}
    prefix = "llm_model." if kind == "llama" else "t5_model."
    added_to(files.files[0], {prefix + name: value for name, value in inner.items()})
    (files.language_model / "model.safetensors").unlink()
    own = files.load().language_model.state_dict()
    assert all(own[name].equal(value) for name, value in inner.items())


@pytest.mark.parametrize("kind", TYPES)
def test_a_published_shape_is_the_default(given, monkeypatch, kind):
    """``pretrained`` left as it is; what would be built is told instead."""
    files = given(kind)
    config = OmegaConf.load(InstructBlip.default_config_path(TYPES[kind])).model
    parts: dict[str, Any] = {}

    def stop(self: InstructBlip, **given: Any) -> None:
        parts.update(given)
        raise InterruptedError

    monkeypatch.setattr(InstructBlip, "__init__", stop)
    with pytest.raises(InterruptedError):
        files.load(pretrained=config.pretrained)
    found = parts["config"]
    assert (found.vision_config.num_hidden_layers, found.vision_config.hidden_size) == (39, 1408)
    assert (found.qformer_config.vocab_size, found.num_query_tokens) == (30523, 32)
    assert found.text_config.hidden_size == 32, "the folder's own"


@pytest.mark.parametrize("kind", TYPES)
def test_an_estimate_needs_none_of_the_files(kind):
    path = InstructBlip.default_config_path(TYPES[kind])
    values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))["model"]
    values |= {"lavis_checkpoint": ["nowhere.pth"], "language_model": "nobody/nothing"}
    total, _ = parameters(on_meta(InstructBlip, shape_of(values)))
    assert total["vision"] == pytest.approx(986e6, rel=0.01)
    assert total["llm"] == pytest.approx({"llama": 6.74e9, "t5": 2.85e9}[kind], rel=0.01)


# Bad input


def message_of(files: Given, **changes: Any) -> str:
    with pytest.raises(UserError) as error:
        files.load(**changes)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"language_model": ""},
            "model.language_model: nothing found beside model.lavis_checkpoint; the folder",
        ),
        ({"lavis_checkpoint": []}, "model.language_model: '.*llm' found without model.lavis_checkpoint"),
        (
            {"lavis_checkpoint": ["a.pth", "b/c.pth"]},
            "model.lavis_checkpoint: a.pth, b/c.pth: no such file; give the paths",
        ),
        ({"language_model": "no_folder"}, "model.language_model: 'no_folder': no such folder"),
        ({"qformer_tokenizer": "no_folder"}, "model.qformer_tokenizer: 'no_folder': no such folder"),
        ({"pretrained": "no_folder"}, "model.pretrained: 'no_folder': no such folder"),
    ],
)
def test_what_is_missing_is_told_before_a_weight_is_read(given, monkeypatch, changes, message):
    files = given("llama")
    monkeypatch.delattr(instructblip, "give_memory")
    with pytest.raises(UserError, match="^" + message) as error:
        files.load(**changes)
    assert "\n" not in str(error.value)


def test_a_language_model_of_another_kind(given):
    files = given("llama")
    (files.language_model / "config.json").write_text('{"model_type": "t5"}')
    assert "config.json: model_type 't5' found, llama expected" in message_of(files)


def test_a_language_model_of_another_width(given):
    files = given("llama")
    path = files.language_model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"hidden_size": 64}))
    found = message_of(files)
    assert (
        "instruct_blip_trimmed.pth" in found and "language_projection.weight [32, 32] where [64, 32]" in found
    )


def test_a_language_model_whose_weights_are_pickled(given):
    files = given("llama")
    (files.language_model / "model.safetensors").rename(files.language_model / "pytorch_model.bin")
    assert "only pickled weights found (pytorch_model.bin), safetensors expected" in message_of(files)


def test_the_image_encoder_left_out(given):
    files = given("llama")
    assert "give LAVIS's eva_vit_g.pth beside it" in message_of(files, lavis_checkpoint=[str(files.files[0])])


def test_a_bert_of_another_vocabulary(given):
    files = given("llama")
    tokenizer = AutoTokenizer.from_pretrained(files.questions)
    tokenizer.add_tokens(["another"])
    tokenizer.save_pretrained(files.questions)
    assert message_of(files).startswith("model.qformer_config.vocab_size: ")


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
