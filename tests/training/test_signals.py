"""Signals of schedulers."""

from __future__ import annotations

import signal
import threading

import pytest

from ealign_plugin.training.signals import GRACE, STOPPING, Stopped, StopSignals, outlive_signals


@pytest.mark.parametrize("number", STOPPING)
def test_the_first_signal_is_noted_and_the_second_ends_the_process(number):
    signals = StopSignals()
    with signals.listening():
        assert signals.number == 0
        signal.raise_signal(number)
        assert signals.number == number
        with pytest.raises(SystemExit) as ended:
            signal.raise_signal(number)
    assert ended.value.code == 128 + number


def test_handlers_are_as_before_when_listening_ends():
    before = [signal.getsignal(number) for number in STOPPING]
    with pytest.raises(ValueError), StopSignals().listening():
        assert [signal.getsignal(number) for number in STOPPING] != before
        raise ValueError
    assert [signal.getsignal(number) for number in STOPPING] == before


def test_what_may_take_long_is_interrupted_at_once():
    signals = StopSignals()
    with signals.listening():
        with pytest.raises(Stopped), signals.interrupting():
            signal.raise_signal(signal.SIGTERM)
        assert signals.number == 0
        signal.raise_signal(signal.SIGTERM)  # afterwards a first one is only noted again
        assert signals.number == signal.SIGTERM


def test_what_may_take_long_does_not_begin_after_a_signal():
    signals = StopSignals()
    with signals.listening():
        signal.raise_signal(signal.SIGUSR1)
        with pytest.raises(Stopped) as ended, signals.interrupting():
            raise AssertionError("it began")
    assert ended.value.code == 128 + signal.SIGUSR1


def test_outside_of_the_main_thread_nothing_is_listened_to():
    failures = []

    def work():
        try:
            with StopSignals().listening():
                pass
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failures


def test_a_data_worker_reads_on_for_a_while():
    before = {number: signal.getsignal(number) for number in STOPPING}
    try:
        outlive_signals(0)
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGTERM)
        assert 0 < signal.alarm(0) <= GRACE  # the alarm that ends it, called off
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
