"""One message for weights that are not those of the model."""

from __future__ import annotations

from collections.abc import Sequence

from ealign_plugin.errors import UserError


def refuse_mismatch(
    where: str,
    *,
    missing: Sequence[str] = (),
    unknown: Sequence[str] = (),
    reshaped: Sequence[str] = (),
    hint: str,
) -> None:
    """Refuse weights if anything is wrong with them.

    Args:
        where: Their origin: a file, a folder, a config key with its value.
        missing: Names that the model has and the weights lack.
        unknown: Names that the model doesn't have.
        reshaped: Names of weights of another shape, each with both shapes.
        hint: What to do.

    Raises:
        UserError: one of the lists isn't empty.
    """
    firsts = [names[0] for names in (reshaped, missing, unknown) if names]
    if firsts:
        are = "is" if len(firsts) == 1 else "of each are"
        raise UserError(
            f"{where}: weights of another model or size ({len(missing)} missing, {len(unknown)} unknown, "
            f"{len(reshaped)} of another shape; the first {are} {', '.join(firsts)}); {hint}"
        )


def unlike_shapes(name: str, found: Sequence[int], expected: Sequence[int]) -> str:
    """'query_tokens [1, 3, 128] where [1, 8, 128] is expected'"""
    return f"{name} {list(found)} where {list(expected)} is expected"
