"""Signals wait for the end of a training step, and an interrupted step is known as such."""

import os
import signal

import pytest

from reidkit.training.interrupt import Interrupts


def send() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_the_first_signal_waits_for_the_end_of_the_step() -> None:
    steps = []
    with pytest.raises(KeyboardInterrupt), Interrupts() as interrupts:
        with interrupts.deferred():
            send()
            steps.append("whole")
        steps.append("after")
    assert steps == ["whole"] and not interrupts.deferring


def test_a_second_signal_does_not_wait_and_the_step_is_not_whole() -> None:
    with pytest.raises(KeyboardInterrupt), Interrupts() as interrupts, interrupts.deferred():
        send()
        send()
    assert interrupts.deferring  # so that its state is not saved


def test_outside_of_steps_a_signal_interrupts_at_once_and_handlers_are_restored() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), Interrupts():
        send()
    assert signal.getsignal(signal.SIGTERM) is before


def test_processes_that_have_to_agree_only_note_the_signal() -> None:
    with Interrupts(immediate=False) as interrupts:
        send()
        with interrupts.deferred():
            pass
        assert interrupts.received
