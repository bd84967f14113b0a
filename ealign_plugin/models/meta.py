"""Models without memory: parameters on the meta device."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from ealign_plugin.models.section import CONFIGS, tokenizer_path, values

if TYPE_CHECKING:
    from ealign_plugin.models.base import NewsModel

STAND_IN = CONFIGS / "tokenizers" / "micro" / "tokenizer.json"
"""A tokenizer for models whose own isn't at hand; only texts' lengths would differ."""


class _Switch(threading.local):
    """Whether this thread is inside `shapes_only`."""

    on = False


_switch = _Switch()


def _to_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
    """torch calls it with each parameter that a module is given; None leaves that as it is."""
    if not _switch.on or parameter is None or parameter.is_meta:
        return None
    return nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)


# By torch's annotation a hook returns nothing; by its documentation, the parameter to take instead.
register_module_parameter_registration_hook(cast("Callable[..., None]", _to_meta))


@contextmanager
def shapes_only() -> Iterator[None]:
    """Parameters made inside are on the meta device: no memory, no random numbers. Buffers hold values.

    Other threads go on making parameters that hold memory.
    """
    before, _switch.on = _switch.on, True
    try:
        yield
    finally:
        _switch.on = before


def give_memory(model: nn.Module) -> None:
    """Parameters on the meta device get memory, its content left to chance; tied ones stay tied."""
    made: dict[nn.Parameter, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            if parameter.is_meta:
                if parameter not in made:
                    empty = torch.empty_like(parameter, device="cpu")
                    made[parameter] = nn.Parameter(empty, parameter.requires_grad)
                setattr(module, name, made[parameter])


def build_on_meta(
    family: Callable[..., NewsModel] | type[NewsModel],
    section: Mapping[str, Any],
    shape: Mapping[str, Any] | None = None,
) -> NewsModel:
    """The model of a section ``model`` on the meta device, as `NewsModel.load_pretrained` without weights.

    Args:
        family: Such as `InstructBlip`.
        section: Its options, and where its config and tokenizers come from.
        shape: Fields of transformers' config that are taken instead, with a tokenizer that stands in; nothing
            is then read or fetched.

    Raises:
        UserError: an impossible option; no such folder, config or tokenizer.
    """
    kind: Any = family
    tokenizer = STAND_IN
    if shape is None:
        pretrained = section.get("pretrained")
        if section.get("lavis_checkpoint") or (pretrained and pretrained != "smol"):
            return kind.without_weights(section)
        shape = values(section, kind.SHAPE)
        if not pretrained:  # type smol's comes out of a large file
            tokenizer = tokenizer_path(section)
    with shapes_only():
        return kind(config=shape, tokenizer=tokenizer, **values(section, kind.OPTIONS))


def set_up_on_meta(model: NewsModel, section: Mapping[str, Any]) -> None:
    """`NewsModel.set_up` of a model on the meta device, LoRA's weights there too; no file is read."""
    with torch.device("meta"):
        model.set_up({**section, "quantize": None, "load_finetuned": False})
