"""LoRA on the language model: the one file that meets peft (0.10 to 0.21).

Of peft it uses ``LoraConfig`` and ``inject_adapter_in_model``, and relies on what these leave in the model:

- an adapted layer has ``base_layer``, and ``lora_A`` and ``lora_B`` by the adapter's name; its ``merge()``
  adds them to the base layer's weight;
- its parameters are named ``q_proj.base_layer.weight`` and ``q_proj.lora_A.default.weight``;
- the language model has ``peft_config`` by the adapter's name, which writes ``adapter_config.json``;
- a language model with ``is_loaded_in_4bit`` has layers of bitsandbytes.

``tests/models/test_lora.py`` fails when one of these moves.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ealign_plugin.errors import UserError
from ealign_plugin.validation import Number, check_keys, unknown

if TYPE_CHECKING:
    from ealign_plugin.models.base import NewsModel

LLAMA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


T5_TARGETS = ("q", "k", "v", "o", "wi_0", "wi_1", "wo")


LORA_RANGES = {
    "r": Number(least=1, whole=True),
    "alpha": Number(above=0),
    "dropout": Number(least=0, below=1),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraOptions:
    """LoRA on the language model (arXiv 2106.09685): ``W x + alpha / r · B A x``, with ``B`` zero at first.

    Args:
        targets: Last names of the linear layers that get it; None: all of a LLaMA's or T5's blocks.
        r: Rank of ``B A``.
        alpha: Strength.
        dropout: Share of ``x`` that is dropped in training.
    """

    targets: tuple[str, ...] | None = None
    r: int = 16
    alpha: float = 16
    dropout: float = 0.05


def lora_options(config: Mapping[str, Any] | None) -> LoraOptions:
    """Read ``model.lora`` of a config; what is missing keeps its default.

    Raises:
        UserError: an unknown name, or a value outside its range.
    """
    if config is not None and not isinstance(config, Mapping):
        raise UserError(f"model.lora: {config!r} found; options expected, such as {{r: 16, alpha: 16}}")
    values = dict(config or {})
    check_keys("model.lora", values, [item.name for item in fields(LoraOptions)], "option")
    targets = values.get("targets")
    if targets is not None:
        named = isinstance(targets, Sequence) and not isinstance(targets, str) and len(targets) > 0
        if not named or not all(isinstance(target, str) and target for target in targets):
            raise UserError(
                f"model.lora.targets: {targets!r} found; a list of names of linear layers expected, "
                "such as [q_proj, v_proj], or null for all of a LLaMA's or T5's blocks"
            )
        values["targets"] = tuple(dict.fromkeys(targets))
    options = LoraOptions(**values)
    for name, numbers in LORA_RANGES.items():
        numbers.check(f"model.lora.{name}", getattr(options, name))
    return options


def put_lora_in(language_model: nn.Module, options: LoraOptions) -> None:
    """Adapt the linear layers that the options name; the other modules keep their names.

    Raises:
        UserError: peft is missing.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise UserError(
            "model.trainable: lora needs the package peft, which is missing; "
            "pip install 'ealign-plugin[lora]', or train connector or connector+llm"
        ) from None

    config = LoraConfig(
        r=options.r,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=list(options.targets or ()),
    )
    inject_adapter_in_model(config, language_model)
    for name, parameter in language_model.named_parameters():
        if is_lora(name):
            # In bfloat16, with its 8 bits, most steps of a small learning rate would round to nothing.
            parameter.data = parameter.data.float()


def with_targets(model: NewsModel, lora: LoraOptions) -> LoraOptions:
    """The options with their targets, each of which names a linear layer of the language model."""
    language_model = model.language_model
    linear = {
        name.rpartition(".")[2]: None
        for name, module in language_model.named_modules()
        if isinstance(module, nn.Linear)
    }
    kind = getattr(language_model.config, "model_type", "")
    targets = lora.targets or (T5_TARGETS if kind == "t5" else LLAMA_TARGETS)
    for target in targets:
        if target not in linear:
            layer = f"linear layer of the language model ({type(language_model).__name__})"
            raise UserError(unknown("model.lora.targets", target, linear, layer, list_all=True))
    return LoraOptions(targets=targets, r=lora.r, alpha=lora.alpha, dropout=lora.dropout)


def is_lora(name: str) -> bool:
    return ".lora_" in name


def lora_layers(model: nn.Module) -> dict[str, Any]:
    """peft's layers by their names in the model."""
    return {
        name: module
        for name, module in model.named_modules()
        if hasattr(module, "lora_A") and hasattr(module, "base_layer")
    }


def state_without_lora(model: nn.Module, *, merge: bool) -> dict[str, Tensor]:
    """The model's weights under the names that they have without LoRA; with ``merge``, LoRA in them."""
    state = {
        name.replace(".base_layer.", "."): value
        for name, value in model.state_dict().items()
        if ".lora_" not in name
    }
    if merge:
        for name, layer in lora_layers(model).items():
            merged = copy.deepcopy(layer)  # one layer at a time, so that the model stays as it is
            merged.merge()
            state[f"{name}.weight"] = merged.base_layer.weight.detach()
    return state


def write_adapter(
    language_model: Any, adapted: Mapping[str, Any], names: Mapping[str, str], folder: Path
) -> None:
    """Write peft's format: the adapter's config, and its weights under the exported model's names.

    Args:
        language_model: With LoRA in it.
        adapted: See `lora_layers`.
        names: Name of each weight in the model → its name in the exported one.
        folder: For `peft.PeftModel.from_pretrained`.
    """
    from safetensors.torch import save_file

    ((adapter, config),) = language_model.peft_config.items()
    config = copy.deepcopy(config)
    places = {name: names[f"{name}.weight"].removesuffix(".weight") for name in adapted}
    # In full: a short name would also mean layers of the image encoder.
    config.target_modules = sorted(places.values())
    config.save_pretrained(folder)
    weights = {
        f"base_model.model.{places[name]}.{part}.weight": getattr(layer, part)[adapter]
        .weight.detach()
        .contiguous()
        for name, layer in adapted.items()
        for part in ("lora_A", "lora_B")
    }
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def mark_as_4bit(language_model: Any) -> None:
    """Say that the linear layers are bitsandbytes', which peft asks before it wraps one."""
    language_model.is_loaded_in_4bit = True
