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

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from torch import nn

from ealign_plugin.errors import UserError
from ealign_plugin.models.lora import LoraOptions, is_lora, put_lora_in, with_targets
from ealign_plugin.validation import unknown

if TYPE_CHECKING:
    from ealign_plugin.models.base import NewsModel

RECIPES = {
    "connector": ("connector",),
    "connector+llm": ("connector", "llm"),
    "lora": ("connector", "lora"),
    "all": ("vision", "connector", "llm"),
}


PARTS = ("vision", "connector", "llm", "lora")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What `set_trainable` did: the parts in the order of `PARTS`, and LoRA's options with their targets."""

    parts: tuple[str, ...]
    lora: LoraOptions | None = None


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
            where = f"model.trainable: {trainable!r} found" if name != trainable else "model.trainable"
            problem = unknown(where, name, [*RECIPES, *PARTS], "part", list_all=True)
            raise UserError(f'{problem}; join parts by "+"')
    if {"llm", "lora"} <= {*named}:
        raise UserError(
            f"model.trainable: {trainable!r} found; llm or lora expected, not both: LoRA stands for the "
            "weights of a frozen language model"
        )
    return tuple(part for part in PARTS if part in named)


def set_trainable(model: NewsModel, trainable: str, lora: LoraOptions | None = None) -> Trained:
    """Freeze everything but these parts; call it once, after the weights are in and before the optimiser.

    A frozen image encoder is put into eval mode and stays there whatever ``model.train()`` says, as in LAVIS
    (its ``disabled_train``); other frozen parts keep their dropout, as there. A trained parameter of LoRA is
    float32 also over half-precision weights.

    Args:
        model: Its ``PARTS`` name the submodules and parameters of each part.
        trainable: See the table at the top of this file.
        lora: Used where ``lora`` is trained; None: the defaults.

    Raises:
        UserError: an unknown part, a LoRA target that names no linear layer, or peft is missing.
    """
    parts = parse_trainable(trainable)
    # Targets are checked before anything is changed.
    options = with_targets(model, lora or LoraOptions()) if "lora" in parts else None
    model.requires_grad_(False)
    for part in parts:
        if part != "lora":
            for name in model.PARTS[part]:
                getattr(model, name).requires_grad_(True)
    if options is not None:
        put_lora_in(model.language_model, options)
    if "vision" not in parts:
        for name in model.PARTS["vision"]:
            module = getattr(model, name)
            module.train = partial(_stay_in_eval, module)
            module.eval()
    return Trained(parts=parts, lora=options)


def _stay_in_eval(module: nn.Module, mode: bool = True) -> nn.Module:
    """`nn.Module.train` of a module without training mode."""
    return nn.Module.train(module, False)


def part_of(model: nn.Module, name: str) -> str:
    """The part that a parameter belongs to: one of `PARTS`, or ``model`` where the model names no parts."""
    for part, roots in getattr(model, "PARTS", {}).items():
        if any(name == root or name.startswith(root + ".") for root in roots):
            return "lora" if part == "llm" and is_lora(name) else part
    return "model"


# Checkpoints


def trainable_names(model: nn.Module) -> list[str]:
    """The parameters that a checkpoint holds: those that are trained, tied ones once."""
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]
