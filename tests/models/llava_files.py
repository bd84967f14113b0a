"""Tokenizers, processors and configs of tiny LLaVAs, as a hub gives them."""

import json
from functools import cache
from typing import Any

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import CLIPImageProcessor, LlavaConfig, LlavaProcessor, PreTrainedTokenizerFast

from ealign_plugin.models.meta import STAND_IN
from ealign_plugin.models.tokenizers import read_tokenizer
from ealign_plugin.models.weights.export import plain_tokenizer

PROMPT = "USER: <image>\n{} ASSISTANT:"
WORDS = (
    "USER ASSISTANT: Ana Lopez speaks in the harbour of Oslo on 3 May, Jun Park listens. Who is it? Write "
    "the caption of the photo. Does this sentence tell what the photo shows? yes no ASSISTANT: USER: " * 3
)


def llama_tokenizer(border: str) -> PreTrainedTokenizerFast:
    """A BPE with "▁" for a space and bytes for what it lacks.

    Each of the three ways in which LLaMA's begins a text with "▁": a normaliser (``prepend``), or a
    pre-tokeniser, for the text alone (``first``) or for what follows a special token too (``always``).
    """
    special, single = ["<unk>", "<s>", "</s>"], [f"<0x{byte:02X}>" for byte in range(256)]
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=special + single, show_progress=False)
    trained.train_from_iterator([WORDS], trainer)
    state = json.loads(trained.to_str())["model"]
    merges = [tuple(pair) for pair in state["merges"]]
    backend = Tokenizer(
        models.BPE(state["vocab"], merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    backend.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in special])
    if border == "prepend":
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=border, split=False)
    backend.decoder = decoders.Sequence(
        [
            *(decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()),
            decoders.Strip(content=" ", left=1, right=0),
        ]
    )
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        model_input_names=["input_ids", "attention_mask"],
    )
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    return tokenizer


@cache
def processor_of(kind: str) -> LlavaProcessor:
    tokenizer = plain_tokenizer(read_tokenizer(STAND_IN)) if kind == "bytes" else llama_tokenizer(kind)
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    return LlavaProcessor(
        CLIPImageProcessor(size={"height": 32, "width": 32}, do_center_crop=False),
        tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        image_token="<image>",
        num_additional_image_tokens=1,
    )


def shape(kind: str, **changes: Any) -> LlavaConfig:
    tokenizer = processor_of(kind).tokenizer
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4}
    text = {
        "model_type": "llama",
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "vocab_size": len(tokenizer),
    }
    tokens = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    vision = {"model_type": "clip_vision_model", "num_hidden_layers": 3, "projection_dim": 32}
    return LlavaConfig(
        vision_config={**sizes, **vision, "image_size": 32, "patch_size": 16},
        text_config={**sizes, **text, **tokens, "max_position_embeddings": 640, "tie_word_embeddings": False},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        **changes,
    )
