"""The older name of `silence_third_party_warnings`, for scripts that are moving."""

from ealign_plugin.cli.third_party import silence_third_party_warnings as quiet

__all__ = ["quiet"]
