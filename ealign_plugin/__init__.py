"""Entity-aware news image captioning for LAVIS.

Importing this package registers its models, data sets, processors, task, runner and schedules with LAVIS
as soon as LAVIS is imported too, in either order, and does nothing else: LAVIS and torch are not imported
for it, so that ``import ealign_plugin.alignment`` or ``ealign_plugin.metrics`` stays cheap.

Example:
    >>> import ealign_plugin
    >>> from lavis.models import load_model
    >>> model = load_model("ealign_instructblip", "micro")
"""

from typing import TYPE_CHECKING, Any

from ealign_plugin.host.startup.ealign_startup import lavis_is_loaded

if TYPE_CHECKING:
    from ealign_plugin.inference.captioner import NewsCaptioner as NewsCaptioner

__version__ = "0.1.0"

if lavis_is_loaded():
    from ealign_plugin.registered import register

    register()


def __getattr__(name: str) -> Any:
    """`NewsCaptioner` is imported when it is first asked for: it needs torch."""
    if name == "NewsCaptioner":
        from ealign_plugin.inference.captioner import NewsCaptioner as NewsCaptioner

        return NewsCaptioner
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
