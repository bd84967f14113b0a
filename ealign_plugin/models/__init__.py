"""Models on plain torch and transformers, without LAVIS."""

from ealign_plugin.models.instructblip import InstructBlip
from ealign_plugin.models.llava import Llava

__all__ = ["InstructBlip", "Llava"]
