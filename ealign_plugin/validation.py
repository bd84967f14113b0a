"""Checks of values that users give, and the words of their messages.

A range says what a value may be, checks one, and describes itself for ``ealign list options``::

    >>> Number(least=1, whole=True).problem("run.max_iters", 0)
    'run.max_iters: found 0, expected at least 1'
    >>> str(Number(least=0, most=1, allow_none=True))
    'a number from 0 to 1, or null'
    >>> str(Choice(("ddp", "fsdp")))
    'ddp or fsdp'

The options of a run are fields of dataclasses, each made by `option` with its default, help and range.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeGuard

from ealign_plugin.errors import UserError

# Ranges


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """Finite numbers within limits; true and false are none.

    Args:
        least: Smallest value.
        most: Largest value.
        above: The value must be larger than this.
        below: The value must be smaller than this.
        whole: Only ints.
        allow_none: Null is a value too: it turns an option off.
        words: Words that stand for a number.
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    whole: bool = False
    allow_none: bool = False
    words: tuple[str, ...] = ()

    def accepts(self, value: object) -> bool:
        """Is the value one of these numbers?"""
        if value is None:
            return self.allow_none
        if isinstance(value, str):
            return value in self.words
        return self._has_the_type(value) and math.isfinite(value) and self._is_within(value)

    def problem(self, where: str, value: object) -> str:
        """What is wrong with the value, in one line; empty where nothing is.

        Args:
            where: The config key or option.
            value: What was found there.
        """
        if self.accepts(value):
            return ""
        number = self._has_the_type(value) and math.isfinite(value)
        expected = (self._limits() if number else "") or str(self)
        return f"{where}: found {'null' if value is None else repr(value)}, expected {expected}"

    def check(self, where: str, value: object) -> None:
        """Refuse any other value.

        Raises:
            UserError: see `problem`.
        """
        if problem := self.problem(where, value):
            raise UserError(problem)

    def __str__(self) -> str:
        kind, limits = "a whole number" if self.whole else "a number", self._limits()
        of = " of" if limits.startswith("at") else ""
        others = [*(["null"] if self.allow_none else []), *self.words]
        numbers = kind + (f"{of} {limits}" if limits else "")
        return ", ".join([numbers, *others[:-1]]) + (f", or {others[-1]}" if others else "")

    def _has_the_type(self, value: object) -> TypeGuard[float]:
        if isinstance(value, bool):
            return False
        return isinstance(value, int) or not self.whole and isinstance(value, float)

    def _is_within(self, value: float) -> bool:
        return (
            (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def _limits(self) -> str:
        if self.least is not None and self.most is not None:
            return f"from {self.least} to {self.most}"
        limits = {"at least": self.least, "above": self.above, "at most": self.most, "below": self.below}
        return " and ".join(f"{word} {limit}" for word, limit in limits.items() if limit is not None)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few values; ``1`` is not ``true``."""

    values: tuple[Any, ...]

    def accepts(self, value: object) -> bool:
        """Is the value one of them?"""
        return any(value is choice or value == choice and type(value) is str for choice in self.values)

    def problem(self, where: str, value: object) -> str:
        """What is wrong with the value, in one line; empty where nothing is."""
        if self.accepts(value):
            return ""
        return f"{where}: found {'null' if value is None else repr(value)}, expected {self}"

    def __str__(self) -> str:
        *others, last = map(as_yaml, self.values)
        return f"{', '.join(others)} or {last}" if others else last


Range = Number | Choice


# Options: fields of dataclasses


def option(
    default: Any,
    help: str,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    choices: tuple[Any, ...] | None = None,
    words: tuple[str, ...] = (),
) -> Any:
    """A dataclass field with the help and the range of a user's option in its ``metadata``.

    Args:
        default: A mapping is copied for each instance. A default of None allows null.
        help: One line, without the key.
        least: Smallest value.
        most: Largest value.
        above: The value must be larger than this.
        choices: All values that there are.
        words: Words that may stand for a number.
    """
    limits = {"least": least, "most": most, "above": above}
    metadata = {"help": help, "limits": limits, "choices": choices, "words": words}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def option_defaults(options: type) -> dict[str, Any]:
    """Key → default, as a YAML has it, of the fields that `option` made."""
    defaults: dict[str, Any] = {}
    for one in fields(options):
        value = one.default if one.default_factory is MISSING else one.default_factory()
        defaults[one.name] = list(value) if isinstance(value, tuple) else value
    return defaults


def option_help(options: type) -> dict[str, str]:
    """Key → one line of help, of the fields that `option` made."""
    return {one.name: one.metadata["help"] for one in fields(options)}


def option_ranges(options: type) -> dict[str, Range]:
    """Key → its range, of the options that have one."""
    ranges: dict[str, Range] = {}
    for one in fields(options):
        limits, choices = one.metadata.get("limits", {}), one.metadata.get("choices")
        words = one.metadata.get("words", ())
        if choices:
            ranges[one.name] = Choice(choices)
        elif any(limit is not None for limit in limits.values()) or words:
            kind = one.type.__name__ if isinstance(one.type, type) else str(one.type)
            names = kind.replace(" ", "").split("|")
            whole = "int" in names and "float" not in names
            ranges[one.name] = Number(**limits, whole=whole, allow_none="None" in names, words=words)
    return ranges


# Names


MOST_LISTED = 12


def unknown(
    where: str, key: object, known: Iterable[str], what: str = "key", *, list_all: bool = False
) -> str:
    """One line: the place, the unknown name, and the nearest known one, or what is known.

    Args:
        where: The config's section, or the option.
        key: What was found there.
        known: What there is.
        what: The word for it.
        list_all: Say all that is known, also beside the nearest name.

    Example:
        >>> unknown("run", "sead", ["seed", "amp"])
        "run: unknown key 'sead'; did you mean 'seed'?"
        >>> unknown("run", "sead", ["seed", "amp"], list_all=True)
        "run: unknown key 'sead'; did you mean 'seed'? Expected one of amp, seed"
    """
    known = sorted(set(known))
    near = suggest(str(key), known)
    cut = len(known) > MOST_LISTED and not list_all
    listed = ", ".join(known[:MOST_LISTED] if cut else known) + (f" ... ({len(known)} in all)" if cut else "")
    if not known:
        hint = "; expected none here"
    elif not near:
        hint = f"; expected one of {listed}"
    else:
        hint = f"{near} Expected one of {listed}" if list_all else near
    return f"{where}: unknown {what} '{key}'{hint}"


def check_keys(where: str, keys: Iterable[object], known: Iterable[str], what: str = "key") -> None:
    """Refuse the first key that is not known; see `unknown`, all of whose names are listed.

    Raises:
        UserError: there is one.
    """
    names = set(known)
    for key in keys:
        if key not in names:
            raise UserError(unknown(where, key, names, what, list_all=True))


def suggest(name: str, known: Iterable[str]) -> str:
    """'; did you mean 'near'?', or '' where nothing is near."""
    near = nearest(name, known)
    return f"; did you mean '{near}'?" if near else ""


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that is most like this one; empty where none is."""
    return next(iter(get_close_matches(name, list(known), n=1)), "")


# Types

TYPE_NAMES: dict[type, str] = {
    dict: "a mapping",
    list: "a list",
    tuple: "a list",
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
}
"""What a YAML's user calls Python's types."""


def type_problem(where: str, value: object, expected: type | None) -> str:
    """What is wrong with a value of another type, in one line; empty where nothing is.

    Null is always right: it turns an option off. An int is a float; true and false are no numbers, which they
    are in Python.
    """
    if value is None or expected is None:
        return ""
    if isinstance(value, bool):
        fits = expected is bool
    else:
        fits = isinstance(value, expected) or expected is float and isinstance(value, int)
    return "" if fits else f"{where}: found {value!r}, expected {TYPE_NAMES.get(expected, expected.__name__)}"


# Messages


def raise_all(path: str | Path, problems: Sequence[str]) -> None:
    """Report every problem at once: on one line if there is one, else one line each.

    Raises:
        UserError: there are problems.
    """
    if len(problems) == 1:
        raise UserError(f"{path}: {problems[0]}")
    if problems:
        raise UserError(f"{path}: {len(problems)} problems\n  " + "\n  ".join(problems))


def in_one_line(error: Exception) -> str:
    """An error's message without line breaks."""
    return " ".join(str(error).split())


def as_yaml(value: object) -> str:
    """'null', 'true', 'bf16', '[a, b]': a value as a user writes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {as_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(as_yaml, value)) + "]"
    return str(value)
