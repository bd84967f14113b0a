"""Named things that another package can add: tasks, contexts, metrics, readers, model families.

Importing the package that registers is what adds them; packages are found by the entry-point group
``lavis.plugins`` or by ``run.plugins`` (`ealign_plugin.host.plugins`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from ealign_plugin.errors import UserError
from ealign_plugin.validation import unknown

T = TypeVar("T")
D = TypeVar("D")


class Registry(Generic[T]):
    """Names and what they stand for, in the order of registration.

    Args:
        what: What is registered, in the singular, for messages: ``"context strategy"``.

    Example:
        >>> colours = Registry[str]("colour")
        >>> colours.register("red", "#f00")
        '#f00'
        >>> colours["red"], list(colours)
        ('#f00', ['red'])
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self._found: dict[str, T] = {}
        self._listeners: list[Callable[[str, T], None]] = []

    def register(self, name: str, value: T) -> T:
        """Add one; the same definition again (a reloaded module) replaces the older one.

        Raises:
            UserError: another package holds the name.
        """
        held = self._found.get(name)
        if held is not None and _origin(held) != _origin(value):
            raise UserError(
                f"{self.what} {name!r}: registered by {_origin(held)} already, then by {_origin(value)}; "
                "rename one of them or uninstall its package"
            )
        self._found[name] = value
        for listener in self._listeners:
            listener(name, value)
        return value

    def unregister(self, name: str) -> None:
        """Take one out, as a test does with what it registered; listeners are not called."""
        self._found.pop(name, None)

    def subscribe(self, listener: Callable[[str, T], None]) -> None:
        """Call ``listener(name, value)`` for all that is registered, now and later."""
        self._listeners.append(listener)
        for name, value in list(self._found.items()):
            listener(name, value)

    def get(self, name: object, where: str = "") -> T:
        """What the name stands for.

        Args:
            name: As a user wrote it.
            where: The config key or option, for the message.

        Raises:
            UserError: nothing has this name; the message lists what there is.
        """
        if not isinstance(name, str) or name not in self._found:
            raise UserError(unknown(where or self.what, name, self._found, what=self.what, list_all=True))
        return self._found[name]

    def __getitem__(self, name: str) -> T:
        return self.get(name)

    def __contains__(self, name: object) -> bool:
        return name in self._found

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def items(self) -> list[tuple[str, T]]:
        """Names and what they stand for."""
        return list(self._found.items())


def _origin(value: object) -> str:
    """'package.module.name' of a class or function, else its type's."""
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"
