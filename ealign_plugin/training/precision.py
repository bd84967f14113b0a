"""Mixed precision: the types that forward passes compute in, and what that takes in the step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ealign_plugin.errors import UserError
from ealign_plugin.training.torch_interfaces import whole_tensor

AMP = {"false": None, "true": torch.bfloat16, "bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """Mixed precision: the types that forward passes compute in, and what that takes in the step.

    Args:
        amp: ``run.amp``: false; ``bf16`` or true; ``fp16``, whose small gradients are kept from vanishing by
            a scale that adapts on the way (arXiv 1710.03740).
        device: Of the model.

    Raises:
        UserError: another value.
    """

    def __init__(self, amp: bool | str | None, device: torch.device) -> None:
        name = str(amp or False).lower()
        if name not in AMP:
            raise UserError(f"run.amp: {amp!r} found; false, true, 'bf16' or 'fp16' expected")
        self.device, self.dtype = device, AMP[name]
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)

    def autocast(self) -> AbstractContextManager[None]:
        """Around each forward pass."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None)

    def step(
        self, optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter], clip: float = 0.0
    ) -> StepOutcome:
        """Clip and step; all processes together.

        Args:
            optimizer: Of the parameters.
            parameters: Whose gradients are clipped.
            clip: Largest norm of the gradients; 0: no clipping.
        """
        before = self.scaler.get_scale()
        self.scaler.unscale_(optimizer)
        norm = None
        if clip:
            norm = nn.utils.clip_grad_norm_(parameters, clip)
            norm = whole_tensor(norm)
        self.scaler.step(optimizer)
        self.scaler.update()
        return StepOutcome(norm, self.scaler.get_scale() < before)

    def state_dict(self) -> dict[str, float]:
        """Numbers that JSON can hold; none but for fp16."""
        return self.scaler.state_dict()

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Of the same ``amp``; a run that goes on from another precision begins with the usual scale."""
        if state and self.scaler.is_enabled():
            self.scaler.load_state_dict(dict(state))


class StepOutcome(NamedTuple):
    """``norm``: of the gradients before clipping (None: not clipped); ``skipped``: they overflowed fp16, the
    weights are as before."""

    norm: Tensor | None
    skipped: bool
