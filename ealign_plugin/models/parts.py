"""Which parameters are trained, at which learning rate, and what of them a checkpoint holds.

::

    model.trainable   vision   connector   llm   lora       source
    connector                      ×                        InstructBLIP's recipe, OSFT in EAMA
    connector+llm                  ×        ×               EAMA's Base and EAMA (arXiv 2402.19404)
    lora                           ×               ×        later work: r 16, alpha 16, dropout 0.05
    all                  ×         ×        ×
    vision+connector+lora, ...     any parts joined by "+"; `lora` alone is short for connector+lora

A family names the modules of its parts in ``PARTS``. LoRA is put *into* the language model
(`peft.inject_adapter_in_model`) and not around it (`peft.get_peft_model`): the language model stays a
transformers model at its place, ``language_model.model`` and ``language_model.lm_head`` go on working, and no
name changes but those of the adapted layers (``q_proj.weight`` becomes ``q_proj.base_layer.weight``, beside
``q_proj.lora_A.default.weight`` and ``lora_B``).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import nn

from ealign_plugin.errors import UserError

RECIPES = {
    "connector": ("connector",),
    "connector+llm": ("connector", "llm"),
    "lora": ("connector", "lora"),
    "all": ("vision", "connector", "llm"),
}
PARTS = ("vision", "connector", "llm", "lora")
LLAMA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
T5_TARGETS = ("q", "k", "v", "o", "wi_0", "wi_1", "wo")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What `set_trainable` did: the parts in the order of `PARTS`, and LoRA's options with their targets."""

    parts: tuple[str, ...]
    lora: LoraOptions | None = None


def lora_options(config: Mapping[str, Any] | None) -> LoraOptions:
    """Read ``model.lora`` of a config; what is missing keeps its default.

    Raises:
        UserError: an unknown name, or a value outside its range.
    """
    if config is not None and not isinstance(config, Mapping):
        raise UserError(f"model.lora: {config!r} found; options expected, such as {{r: 16, alpha: 16}}")
    values = dict(config or {})
    known = [item.name for item in fields(LoraOptions)]
    for name in values:
        if name not in known:
            raise UserError(f"model.lora: unknown option {name!r} found; {_expected(name, known)}")
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
    if type(options.r) is not int or options.r < 1:
        raise UserError(f"model.lora.r: {options.r!r} found; a whole number of at least 1 expected")
    if not _is_number(options.alpha) or options.alpha <= 0:
        raise UserError(f"model.lora.alpha: {options.alpha!r} found; a number above 0 expected")
    if not _is_number(options.dropout) or not 0 <= options.dropout < 1:
        raise UserError(f"model.lora.dropout: {options.dropout!r} found; at least 0 and below 1 expected")
    return options


def parse_trainable(trainable: str) -> tuple[str, ...]:
    """The parts that ``model.trainable`` names, in the order of `PARTS`.

    >>> parse_trainable("lora"), parse_trainable("llm+vision")
    (('connector', 'lora'), ('vision', 'llm'))

    Raises:
        UserError: an unknown part, or ``llm`` beside ``lora``.
    """
    if isinstance(trainable, str) and trainable in RECIPES:
        return RECIPES[trainable]
    named = [name.strip() for name in str(trainable).split("+")]
    for name in named:
        if name not in PARTS:
            raise UserError(
                f"model.trainable: {trainable!r} found; {_expected(name, [*RECIPES, *PARTS])}; "
                'join parts by "+"'
            )
    if {"llm", "lora"} <= {*named}:
        raise UserError(
            f"model.trainable: {trainable!r} found; llm or lora expected, not both: LoRA stands for the "
            "weights of a frozen language model"
        )
    return tuple(part for part in PARTS if part in named)


def set_trainable(model: nn.Module, trainable: str, lora: LoraOptions | None = None) -> Trained:
    """Freeze everything but these parts; call it once, after the weights are in and before the optimiser.

    A frozen image encoder is put into eval mode and stays there whatever ``model.train()`` says, as in LAVIS
    (its ``disabled_train``); other frozen parts keep their dropout, as there. A trained parameter of LoRA is
    float32 also over half-precision weights.

    Args:
        model: A model with ``PARTS``: part → names of its submodules and parameters.
        trainable: See the table at the top of this file.
        lora: Used where ``lora`` is trained; None: the defaults.

    Raises:
        UserError: an unknown part, a LoRA target that names no linear layer, or peft is missing.
    """
    parts = parse_trainable(trainable)
    # Targets are checked before anything is changed.
    options = _resolved(model, lora or LoraOptions()) if "lora" in parts else None
    model.requires_grad_(False)
    for part in parts:
        if part != "lora":
            for name in model.PARTS[part]:
                getattr(model, name).requires_grad_(True)
    if options is not None:
        _put_lora_in(model.language_model, options)
    if "vision" not in parts:
        for name in model.PARTS["vision"]:
            module = getattr(model, name)
            module.train = partial(_stay_in_eval, module)
            module.eval()
    return Trained(parts=parts, lora=options)


def _stay_in_eval(module: nn.Module, mode: bool = True) -> nn.Module:
    """`nn.Module.train` of a module without training mode."""
    return nn.Module.train(module, False)


def _put_lora_in(language_model: nn.Module, options: LoraOptions) -> None:
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
        if _is_lora(name):
            # In bfloat16, with its 8 bits, most steps of a small learning rate would round to nothing.
            parameter.data = parameter.data.float()


def _resolved(model: nn.Module, lora: LoraOptions) -> LoraOptions:
    """The options with their targets, each of which names a linear layer of the language model."""
    language_model: Any = model.language_model
    linear = {
        name.rpartition(".")[2]: None
        for name, module in language_model.named_modules()
        if isinstance(module, nn.Linear)
    }
    kind = getattr(language_model.config, "model_type", "")
    targets = lora.targets or (T5_TARGETS if kind == "t5" else LLAMA_TARGETS)
    for target in targets:
        if target not in linear:
            raise UserError(
                f"model.lora.targets: {target!r} found, which names no linear layer of the language model "
                f"({type(language_model).__name__}); {_expected(target, list(linear))}"
            )
    return LoraOptions(targets=targets, r=lora.r, alpha=lora.alpha, dropout=lora.dropout)


def part_of(model: nn.Module, name: str) -> str:
    """The part that a parameter belongs to: one of `PARTS`, or ``model`` where the model names no parts."""
    for part, roots in getattr(model, "PARTS", {}).items():
        if any(name == root or name.startswith(root + ".") for root in roots):
            return "lora" if part == "llm" and _is_lora(name) else part
    return "model"


def _is_lora(name: str) -> bool:
    return ".lora_" in name


# Optimiser


def parameter_groups(
    model: nn.Module, lr: float, weight_decay: float, lrs: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """AdamW's groups: each trained parameter once, by part, vectors apart from the rest.

    Norms, biases and other vectors (at most one dimension) are not decayed; everything else is, query tokens
    [1, Q, F] and position embeddings too, as in LAVIS (``get_optimizer_params``, RunnerBase.optimizer).

    Args:
        model: A model after `set_trainable`; one without ``PARTS`` is one part, ``model``.
        lr: The learning rate, ``run.init_lr``.
        weight_decay: Of matrices.
        lrs: Part → its own learning rate, where it differs; ``run.lrs``.

    Returns:
        Groups ``{params, name, lr, lr_scale, weight_decay}``. A schedule that moves ``lr`` sets
        ``lr_scale`` times its rate, so warm-up and cosine have the same shape for each part.

    Raises:
        UserError: nothing is trained, a rate that is not above 0, or one for a part that is not trained.
    """
    found: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            found.setdefault((part_of(model, name), parameter.ndim > 1), []).append(parameter)
    if not found:
        raise UserError("model.trainable: no parameter is left to train; name at least one part")
    parts = list(dict.fromkeys(part for part, _ in found))
    rates = {"run.init_lr": lr, **{f"run.lrs.{part}": rate for part, rate in (lrs or {}).items()}}
    for key, rate in rates.items():
        if not _is_number(rate) or not rate > 0:
            raise UserError(f"{key}: {rate!r} found; a learning rate above 0 expected")
    for part in lrs or {}:
        if part not in parts:
            raise UserError(f"run.lrs: {part!r} found, which is not trained; {_expected(part, parts)}")
    return [
        {
            "params": parameters,
            "name": part if decayed else f"{part} (vectors)",
            "lr": (rate := (lrs or {}).get(part, lr)),
            "lr_scale": rate / lr,
            "weight_decay": weight_decay if decayed else 0.0,
        }
        for (part, decayed), parameters in found.items()
    ]


# Checkpoints


def trainable_names(model: nn.Module) -> list[str]:
    """The parameters that a checkpoint holds: those that are trained, tied ones once."""
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def checkpoint_metadata(*, arch: str, base: str, trained: Trained) -> dict[str, str]:
    """What a checkpoint's safetensors header says of the model that it completes.

    Args:
        arch: The registered name, such as ``ealign_instructblip``.
        base: Where the other weights come from: a model type, a hub id or a folder's name (no path: a
            checkpoint may travel).
        trained: What `set_trainable` returned.
    """
    lora = asdict(trained.lora) if trained.lora else None
    return {
        "arch": arch,
        "base": base,
        "trainable": "+".join(trained.parts),
        "lora": json.dumps(lora, sort_keys=True),
    }


def check_metadata(path: str | Path, found: Mapping[str, str] | None, expected: Mapping[str, str]) -> None:
    """Refuse a checkpoint of another recipe before its weights are read.

    LoRA's dropout may differ: it isn't part of what was learnt. A file without this metadata passes; its
    names and shapes remain to be checked.

    Args:
        path: The checkpoint, for the message.
        found: Its safetensors metadata.
        expected: `NewsModel.recipe` of the model to fill.

    Raises:
        UserError: architecture, base weights, trained parts or LoRA differ.
    """
    keys = {
        "arch": "model.arch",
        "base": "the base weights",
        "trainable": "model.trainable",
        "reads": "what the image tokens read besides the image (model.qformer_text)",
    }
    for name, key in keys.items():
        if name in expected and (found or {}).get(name, expected[name]) != expected[name]:
            raise UserError(
                f"{path}: a checkpoint of another recipe: {key} is {expected[name]!r} here and was "
                f"{(found or {})[name]!r} when it was written; use the same"
            )
    here, there = (_lora_of(values) for values in (expected, found or expected))
    for name, value in here.items():
        if name != "dropout" and there.get(name, value) != value:
            raise UserError(
                f"{path}: a checkpoint of another recipe: model.lora.{name} is {value!r} here and was "
                f"{there[name]!r} when it was written; use the same"
            )


def _lora_of(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The options of LoRA; a header that isn't ours says nothing."""
    try:
        values = json.loads(metadata.get("lora", "null"))
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


# 4-bit weights


def quantize_language_model(model: nn.Module, kind: str, trainable: str) -> None:
    """Hold the frozen language model's linear layers in 4 bits (QLoRA, arXiv 2305.14314).

    Call it after the weights are in and before `set_trainable`; they are rounded when the model is moved to
    the GPU. Output layer and embeddings stay as they are. Activations are computed in bfloat16 where the GPU
    has it, else in float16.

    Args:
        model: A model with ``language_model``.
        kind: ``nf4``.
        trainable: ``model.trainable``: the language model's own weights must stay frozen.

    Raises:
        UserError: another kind, a language model that is trained, no GPU, or no bitsandbytes.
    """
    if kind != "nf4":
        raise UserError(f"model.quantize: {kind!r} found; 'nf4' or null expected")
    if "llm" in parse_trainable(trainable):
        raise UserError(
            f"model.quantize: 'nf4' found beside model.trainable {trainable!r}; weights of 4 bits cannot be "
            "trained, use lora or connector"
        )
    if not torch.cuda.is_available():
        raise UserError("model.quantize: 'nf4' found, which needs a GPU; set it to null on this machine")
    try:
        import bitsandbytes as bnb
    except ImportError:
        raise UserError(
            "model.quantize: 'nf4' needs the package bitsandbytes, which is missing; "
            "pip install 'ealign-plugin[quantize]', or set it to null"
        ) from None

    compute = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    language_model: Any = model.language_model
    output = language_model.get_output_embeddings()
    linear = [
        (name, module)
        for name, module in language_model.named_modules()
        if isinstance(module, nn.Linear) and module is not output
    ]
    for name, module in linear:
        small = bnb.nn.Linear4bit(
            module.in_features,
            module.out_features,
            bias=module.bias is not None,
            compute_dtype=compute,
            quant_type="nf4",
        )
        small.weight = bnb.nn.Params4bit(module.weight.data, requires_grad=False, quant_type="nf4")
        small.bias = module.bias
        parent, _, last = name.rpartition(".")
        setattr(language_model.get_submodule(parent), last, small)
    language_model.is_loaded_in_4bit = True  # peft asks this before it wraps a Linear4bit


# Messages


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _expected(found: str, valid: Sequence[str] | Iterable[str]) -> str:
    """'one of a, b expected; did you mean b?'"""
    names = list(dict.fromkeys(valid))
    near = get_close_matches(str(found), names, n=1)
    return f"one of {', '.join(names)} expected" + (f"; did you mean {near[0]}?" if near else "")
