"""The language model of a family, built from transformers' config with the options of a `NewsModel`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ealign_plugin.errors import UserError
from ealign_plugin.models.attention.interface import replace_attention
from ealign_plugin.models.attention.packed import can_pack
from ealign_plugin.validation import in_one_line

if TYPE_CHECKING:
    from ealign_plugin.models.base import NewsModel


def build_language_model(model: NewsModel, config: Any) -> Any:
    """transformers' causal or encoder-decoder model of a config, with random weights.

    Args:
        model: Its ``batching`` becomes ``groups`` where packs cannot run: an encoder-decoder, or a
            transformers before 4.51.
        config: Of transformers.

    Raises:
        UserError: this transformers doesn't know the attention that was asked for, or a T5 is to compute
            in fp16, which it overflows.
    """
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    if config.model_type == "t5" and model.dtypes["llm"] == torch.float16:
        raise UserError("model.dtype: 'fp16' found, which a T5 overflows; 'bf16' or 'fp32' expected")
    if model.batching == "packed" and (config.is_encoder_decoder or not can_pack()):
        model.batching = "groups"
    packed = model.batching == "packed"
    name = "sdpa" if packed else model.attn_implementation
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    try:
        built = auto.from_config(config, **({"attn_implementation": name} if name else {}))
        if not replace_attention(built) and packed:
            raise ValueError("its attention cannot be replaced")
    except (ValueError, KeyError, ImportError) as error:
        found = "batching: 'packed'" if packed else f"attn_implementation: {name!r}"
        raise UserError(
            f"model.{found} found, which transformers refuses for a {config.model_type} here "
            f"({in_one_line(error)[:200]}); set it to {'groups' if packed else 'null'}"
        ) from None
    if model.gradient_checkpointing:
        built.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return built


def check_length(model: NewsModel, image_length: int) -> None:
    """Refuse lengths that the language model has no positions for; T5 has no such limit.

    Raises:
        UserError: image tokens, longest instruction and longest target together are too long.
    """
    text = model.config.text_config
    positions = None if text.is_encoder_decoder else getattr(text, "max_position_embeddings", None)
    longest = len(model.before) + image_length + model.max_txt_len + model.max_output_txt_len
    if positions is not None and longest > positions:
        raise UserError(
            f"model.max_txt_len: {model.max_txt_len} found; with {len(model.before) + image_length} image "
            f"tokens and max_output_txt_len {model.max_output_txt_len} that makes {longest}, at most "
            f"text_config.max_position_embeddings ({positions}) expected; lower one of them"
        )
