"""Checks of values that users give, and the words of their messages."""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeGuard

from ealign_plugin.errors import UserError


def unknown(where: str, key: object, known: Iterable[str], what: str = "key") -> str:
    """One problem line: the place, the unknown name, and the nearest known one, or what is known."""
    known = sorted(known)
    hint = suggest(str(key), known)
    if not hint:
        listed = ", ".join(known[:12]) + (f" ... ({len(known)} in all)" if len(known) > 12 else "")
        hint = f"; expected one of {listed}" if known else "; expected none here"
    return f"{where}: unknown {what} '{key}'{hint}"


def suggest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def raise_all(path: str | Path, problems: Sequence[str]) -> None:
    """UserError with every problem found: on one line if there is one, else one line each."""
    if len(problems) == 1:
        raise UserError(f"{path}: {problems[0]}")
    if problems:
        raise UserError(f"{path}: {len(problems)} problems\n  " + "\n  ".join(problems))


def in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())


# Messages


def is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def expected_one_of(found: str, valid: Sequence[str] | Iterable[str]) -> str:
    """'one of a, b expected; did you mean b?'"""
    names = list(dict.fromkeys(valid))
    near = get_close_matches(str(found), names, n=1)
    return f"one of {', '.join(names)} expected" + (f"; did you mean {near[0]}?" if near else "")


def is_number_between(value: object, least: float, most: float = sys.float_info.max) -> bool:
    """Is it a finite number within these limits? true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


def check_names(record: Any, changes: Mapping[str, object], where: str) -> None:
    """Refuse changes of fields that a dataclass record does not have.

    Raises:
        UserError: an unknown name.
    """
    known = {f.name for f in fields(record)}
    for name in changes:
        if name not in known:
            raise UserError(f"{where}: unknown key {name!r}; known are {', '.join(sorted(known))}")
