"""A trained model → a folder that plain transformers loads.

::

    config.json  generation_config.json  model*.safetensors    InstructBlip- or LlavaForConditionalGeneration
    tokenizer.json ...  preprocessor_config.json ...           its processor: same tokens, same pixels
    qformer_tokenizer/                                         InstructBLIP
    adapter/                                                   LoRA, where it is kept apart

transformers' own class writes the folder, so names and formats are those of the version that runs.
"""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ealign_plugin.errors import UserError
from ealign_plugin.files import cannot_write
from ealign_plugin.models.lora import lora_layers, state_without_lora, write_adapter
from ealign_plugin.models.weights.loading import BY_TOKEN, match_names

IMAGE_TOKEN = "<image>"


ADAPTER = "adapter"


def export(
    model: Any,
    folder: Path,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    keep_lora: bool = False,
    files: Mapping[str, bytes] | None = None,
) -> None:
    """Write ``folder``, whole or not at all; the model stays as it is.

    Args:
        model: A `NewsModel`; its submodules bear transformers' names, its family says the class
            (``PUBLISHED_AS``) and makes the processor (`NewsModel.processor`).
        folder: Must not exist.
        mean: Of each colour channel, as the image processor subtracts it.
        std: Of each colour channel.
        keep_lora: Write LoRA into ``folder/adapter`` (for `peft.PeftModel.from_pretrained`) instead of
            adding it to the weights.
        files: Name → content of small files to lie beside the weights.

    Raises:
        UserError: the folder exists or cannot be written; ``keep_lora`` without LoRA; or weights are held
            in 4 bits.
    """
    if folder.exists():
        raise UserError(f"{folder}: exists already, a new folder expected; remove it or name another one")
    adapted = lora_layers(model)
    if keep_lora and not adapted:
        raise UserError("--keep-lora: the model has no LoRA; leave the option out")
    for name, value in model.named_parameters():
        if not value.is_floating_point():
            raise UserError(f"model.quantize: {name} is held in 4 bits; set it to null to export")
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        part.mkdir(parents=True)
        processor = model.processor(mean, std)
        image_token = processor.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        plain, names = plain_model(model, merge=not keep_lora, image_token=image_token)
        plain.save_pretrained(part)
        processor.save_pretrained(part)
        if keep_lora:
            write_adapter(model.language_model, adapted, names, part / ADAPTER)
        mode = (part / "config.json").stat().st_mode  # as the user's umask has it
        for path in part.rglob("*.safetensors"):
            path.chmod(mode)  # safetensors closes its files to others
        for name, content in (files or {}).items():
            (part / name).write_bytes(content)
        os.rename(part, folder)
    except OSError as error:
        raise cannot_write(folder, error) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def plain_model(model: Any, *, merge: bool, image_token: int) -> tuple[Any, dict[str, str]]:
    """transformers' class around the model's own weights, and what it calls each of them.

    Args:
        model: See `export`.
        merge: Add LoRA to the weights.
        image_token: Id of the token that stands for the image; one beyond the vocabulary enlarges it.
    """
    import transformers

    config = copy.deepcopy(model.config)
    config.image_token_index = image_token
    text = config.text_config
    tokens = {
        name: getattr(model.tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")
    }
    for name, token in tokens.items():
        setattr(text, name, token)
    if text.is_encoder_decoder:
        tokens["decoder_start_token_id"] = text.decoder_start_token_id
    else:
        llm = model.language_model
        text.tie_word_embeddings = llm.get_output_embeddings().weight is llm.get_input_embeddings().weight
    state = state_without_lora(model, merge=merge)
    if image_token >= text.vocab_size:
        text.vocab_size = image_token + 1
        state = {name: _with_rows(value, name, text.vocab_size) for name, value in state.items()}
    with torch.device("meta"):  # without memory; it gets the model's tensors
        plain = getattr(transformers, model.PUBLISHED_AS)(config)
    names = match_names(plain, {name: tuple(value.shape) for name, value in state.items()}, "export")
    plain.load_state_dict({theirs: state[ours] for ours, theirs in names.items()}, strict=False, assign=True)
    plain.generation_config = transformers.GenerationConfig(**tokens)
    return plain.eval(), names


def _with_rows(value: Tensor, name: str, size: int) -> Tensor:
    """Embeddings with rows of zeros for tokens that are only ever replaced by the image."""
    if not (name.startswith("language_model.") and name.endswith(BY_TOKEN)):
        return value
    return torch.cat([value, value.new_zeros(size - len(value), value.shape[1])])


def image_options(model: Any, mean: Sequence[float], std: Sequence[float]) -> dict[str, Any]:
    """Arguments of an image processor of transformers that does what `ImageProcessor` does at test time."""
    size = model.config.vision_config.image_size
    return {
        "size": {"height": size, "width": size},
        "resample": 3,  # Pillow's bicubic
        "image_mean": list(mean),
        "image_std": list(std),
        "do_convert_rgb": True,
    }


def plain_tokenizer(tokenizer: Any, side: str = "left") -> Any:
    """A copy that reads special tokens in texts, as processors need it, and begins a text by itself.

    Args:
        tokenizer: A fast tokenizer of transformers.
        side: Where it pads.
    """
    from tokenizers.processors import TemplateProcessing

    plain = copy.deepcopy(tokenizer)
    settings = {"split_special_tokens": False, "model_input_names": ["input_ids", "attention_mask"]}
    for name, value in settings.items():
        setattr(plain, name, value)
        plain.init_kwargs[name] = value  # what is saved
    plain.padding_side = side
    if not plain("")["input_ids"]:
        plain.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"{plain.bos_token} $A", special_tokens=[(plain.bos_token, plain.bos_token_id)]
        )
    return plain
