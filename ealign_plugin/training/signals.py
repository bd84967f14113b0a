"""Signals of schedulers that are about to take the machine away: a run saves a checkpoint and ends."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

STOPPING = (signal.SIGTERM, signal.SIGUSR1)
"""Of schedulers that are about to take the machine away."""

GRACE = 20
"""Seconds that a data worker reads on after SIGTERM: schedulers send it to all processes of a job."""


class Stopped(SystemExit):
    """Ends the process with 128 + the signal's number, the code that shells and schedulers know."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


class StopSignals:
    """Whether this process was asked to stop.

    ::

        first signal during training     noted in `number`; the loop saves after its step and ends
        first signal during evaluation   `Stopped` is raised at once: an evaluation may take hours
        second signal                    `Stopped` is raised at once

    Example:
        >>> signals = StopSignals()
        >>> with signals.listening():
        ...     signal.raise_signal(signal.SIGTERM)
        >>> signals.number == signal.SIGTERM
        True
    """

    def __init__(self) -> None:
        self.number = 0
        """The signal that asked for it; 0: none."""
        self._at_once = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Inside, signals of `STOPPING` come here; outside of the main thread, as in a notebook's, not."""
        try:
            before = {number: signal.signal(number, self._receive) for number in STOPPING}
        except ValueError:
            yield
            return
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Inside, a signal ends the process at once, also one that came before.

        Raises:
            Stopped: There was a signal.
        """
        self._at_once = True
        try:
            if self.number:
                raise Stopped(self.number)
            yield
        finally:
            self._at_once = False

    def _receive(self, number: int, _: Any) -> None:
        if self.number or self._at_once:
            raise Stopped(number)
        self.number = number


def outlive_signals(_: int) -> None:
    """Make a data worker read on: signals go to all processes of a job, and the last steps need data.

    To be DataLoader's ``worker_init_fn``.
    """
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE))
