"""Models on transformers' modules, registered with LAVIS."""

from ealign_plugin.models.instructblip import InstructBlip

__all__ = ["InstructBlip"]
