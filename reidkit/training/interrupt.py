"""Ctrl-C and SIGTERM: training stops between two steps, where its state can be saved."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Turns the first SIGINT or SIGTERM into a KeyboardInterrupt outside of training steps.

    Within `deferred` the signal waits for the end of the block; a second one does not wait. As a
    context manager it installs its handlers, and restores the earlier ones. Without effect outside
    of the main thread, where Python cannot handle signals.

    Args:
        immediate: False: signals are only noted in `received`, for processes that have to agree on
            the step to stop at.

    Attributes:
        received: whether there was a signal.
        deferring: within a deferred block, or after one that did not end: its state is not whole.
    """

    def __init__(self, *, immediate: bool = True) -> None:
        self.immediate = immediate
        self.received = False
        self.deferring = False
        self._process = os.getpid()
        self._earlier: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._earlier = {name: signal.signal(name, self._handle) for name in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for name, handler in self._earlier.items():
            signal.signal(name, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """A block that the first signal does not interrupt."""
        self.deferring = True
        yield
        self.deferring = False  # stays true after an exception
        if self.received and self.immediate:
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a forked worker of the data loader, which its parent stops
        repeated, self.received = self.received, True
        if repeated or (self.immediate and not self.deferring):
            raise KeyboardInterrupt
