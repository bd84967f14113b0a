"""Models on transformers' modules, registered with LAVIS."""

from ealign_plugin.models.instructblip import InstructBlip
from ealign_plugin.models.llava import Llava

__all__ = ["InstructBlip", "Llava"]
