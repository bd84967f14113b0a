"""The model families, registered with LAVIS."""

from ealign_plugin.models import InstructBlip, Llava

__all__ = ["InstructBlip", "Llava"]
