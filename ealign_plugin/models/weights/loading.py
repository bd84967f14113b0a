"""Copying given weights into a model, whatever version of transformers named them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ealign_plugin.models.weights.headers import open_safetensors
from ealign_plugin.models.weights.hub import shards
from ealign_plugin.models.weights.mismatch import refuse_mismatch, unlike_shapes

BY_TOKEN = ("embed_tokens.weight", "shared.weight", "lm_head.weight")  # a row for each token


# Buffers that older versions saved and newer ones compute.
_COMPUTED = (".position_ids", ".rotary_emb.inv_freq", ".relative_position_index")


# Filling a model


def load_weights_into(
    model: nn.Module, folder: Path, *, without: Sequence[str] = (), added_tokens: int = 0
) -> None:
    """Copy a folder's weights into a model, a tensor at a time; the model keeps its precision and device.

    Args:
        model: Its parameters hold memory (not on the meta device), and LoRA is not in it yet.
        folder: With safetensors.
        without: Submodules that keep what they hold.
        added_tokens: The model's vocabulary may be so many tokens larger than the folder's; their
            embeddings keep what they hold.

    Raises:
        UserError: see `shards`; or the weights are another model's or another size's. The model is then
            unchanged.
    """
    with ExitStack() as stack:
        origin: dict[str, Any] = {}
        for path in shards(folder):
            file = stack.enter_context(open_safetensors(path))
            origin |= dict.fromkeys(file.keys(), file)
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name, file in origin.items()}
        names = match_names(model, shapes, str(folder), without=without, added_tokens=added_tokens)
        copy_weights(model, names, lambda name: origin[name].get_tensor(name))


def match_names(
    model: nn.Module,
    shapes: Mapping[str, tuple[int, ...]],
    where: str,
    *,
    without: Sequence[str] = (),
    added_tokens: int = 0,
    hint: str = "name the model.model_type that they were made for",
) -> dict[str, str]:
    """Which of the model's weights each given weight fills.

    Args:
        model: What is to be filled; works on the meta device too.
        shapes: Name and shape of each given weight, named as any version of transformers does.
        where: The origin, for the message.
        without: Submodules left out.
        added_tokens: See `load_weights_into`.
        hint: The end of the message.

    Returns:
        Given name → the model's name.

    Raises:
        UserError: weights are missing, unknown, or of another shape.
    """
    own = model.state_dict(keep_vars=True)
    left_out = tuple(name + "." for name in without)
    names, unknown, other = {}, [], []
    for name, shape in shapes.items():
        if name.endswith(_COMPUTED):
            continue
        target = next((spelling for spelling in _spellings(name) if spelling in own), None)
        if target is None:
            if not any((spelling + ".").startswith(left_out) for spelling in _spellings(name)):
                unknown.append(name)
        elif target.startswith(left_out):
            continue
        elif _fits(target, shape, tuple(own[target].shape), added_tokens):
            names[name] = target
        else:
            other.append(unlike_shapes(name, shape, own[target].shape))
    filled = {id(own[target]) for target in names.values()}  # tied weights are one object
    wrong = [text.split()[0] for text in other]
    covered = {target for name in wrong for target in _spellings(name)}
    missing = [
        name
        for name, value in own.items()
        if id(value) not in filled
        and name not in covered
        and not name.startswith(left_out)
        and not name.endswith(_COMPUTED)
    ]
    refuse_mismatch(where, missing=missing, unknown=unknown, reshaped=other, hint=hint)
    return names


def _spellings(name: str) -> Iterator[str]:
    """The name as it stands, and as other versions of transformers write it.

    >>> list(_spellings("model.language_model.layers.0.mlp.up_proj.weight"))[1]
    'language_model.model.layers.0.mlp.up_proj.weight'
    """
    for base in dict.fromkeys([name, name.removeprefix("model."), "model." + name, "language_model." + name]):
        yield base
        for shorter, longer in (
            ("language_model.", "language_model.model."),
            ("model.language_model.", "language_model.model."),
            ("vision_tower.", "vision_tower.vision_model."),
        ):
            if base.startswith(longer):
                yield shorter + base.removeprefix(longer)
            elif base.startswith(shorter):
                yield longer + base.removeprefix(shorter)
    if name.startswith("language_model.lm_head."):
        yield name.removeprefix("language_model.")


def _fits(name: str, given: tuple[int, ...], wanted: tuple[int, ...], added_tokens: int) -> bool:
    if given == wanted:
        return True
    return name.endswith(BY_TOKEN) and given[1:] == wanted[1:] and 0 < wanted[0] - given[0] <= added_tokens


@torch.no_grad()
def copy_weights(model: nn.Module, names: Mapping[str, str], read: Callable[[str], Tensor]) -> None:
    """Fill the model's weights, a tensor at a time.

    Args:
        model: See `load_weights_into`.
        names: See `match_names`.
        read: Given name → tensor.
    """
    _untie(model, names, read)
    own = model.state_dict()
    for name, target in names.items():
        value = read(name)
        (own[target][: len(value)] if value.ndim else own[target]).copy_(value)


def _untie(model: nn.Module, names: Mapping[str, str], read: Callable[[str], Tensor]) -> None:
    """Give the head weights of its own where it is tied to the embeddings, and given otherwise.

    transformers 5 ties every T5; Flan-T5's head is another than its embeddings.
    """
    own = model.state_dict(keep_vars=True)
    for name, target in names.items():
        if not target.endswith("lm_head.weight"):
            continue
        twins = [twin for twin, other in names.items() if other != target and own[other] is own[target]]
        if twins and not torch.equal(read(name), read(twins[0])):
            weight = nn.Parameter(own[target].detach().clone(), own[target].requires_grad)
            model.get_submodule(target.removesuffix(".weight")).weight = weight
