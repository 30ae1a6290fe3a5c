"""Ctrl-C, SIGTERM and SIGHUP: a command stops where nothing is lost, and says so in one line.

A signal handler runs between any two instructions. An exception raised there can end up in a
module that is half imported or in a callback of the garbage collector, where Python prints and
drops it. Therefore training only takes note of the first signal and raises at points of its own,
a step apart, and during an import, most of which are at the start of a command, the process ends
at once. What it leaves is what `kill -9` would leave: files are written atomically.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""Windows has no SIGHUP, which a terminal sends when it is closed."""

_IMPORT_SYSTEM = "<frozen importlib._bootstrap>"

Handler = Callable[[int, FrameType | None], None]


class Interrupted(KeyboardInterrupt):
    """A signal ended the command.

    Attributes:
        number: of the signal.
        advice: what to do next; empty if nothing is lost.
    """

    def __init__(self, number: int = signal.SIGINT, advice: str = "") -> None:
        super().__init__(number)
        self.number = number
        self.advice = advice

    @property
    def status(self) -> int:
        """Exit status, as shells report a signal: 130, 143 or 129."""
        return 128 + self.number


@contextmanager
def handlers(handle: Handler) -> Iterator[None]:
    """Within, `handle` receives `SIGNALS` in this process, but for those that it was started to
    ignore: nohup ignores SIGHUP. Without effect outside of the main thread, where Python cannot
    handle signals.

    Forked processes, such as workers of a data loader, inherit the handlers: they leave SIGINT and
    SIGHUP to their parent, which stops them, and end by SIGTERM.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    process = os.getpid()

    def handle_own(number: int, frame: FrameType | None) -> None:
        if os.getpid() == process:
            handle(number, frame)
        elif number == signal.SIGTERM:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    earlier: dict[signal.Signals, Any] = {}
    try:
        for name in SIGNALS:
            if signal.getsignal(name) is signal.SIG_IGN:
                continue
            earlier[name] = signal.signal(name, handle_own)
        yield
    finally:
        for name, handler in earlier.items():
            signal.signal(name, handler)


def stop_command(number: int, frame: FrameType | None) -> None:
    """Handler of the command line: raises Interrupted. During an import the process ends."""
    while frame is not None:
        if frame.f_code.co_filename == _IMPORT_SYSTEM:
            os.write(2, b"stopped while packages were imported\n")
            os._exit(Interrupted(number).status)
        frame = frame.f_back
    raise Interrupted(number)


class Interrupts:
    """Takes note of the first of `SIGNALS`; `check` raises Interrupted. A second one does not
    wait for that. A context manager, within which signals are handled this way.

    Args:
        enabled: False: `check` does nothing, for processes that have to agree on the step to stop
            at.

    Attributes:
        received: number of the signal; 0: there was none.
        in_step: within `step`, or after one that did not end: the state is not whole.
    """

    def __init__(self, *, enabled: bool = True) -> None:
        self.enabled = enabled
        self.received = 0
        self.in_step = False
        self._handlers = handlers(self._handle)

    def __enter__(self) -> Interrupts:
        self._handlers.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._handlers.__exit__(*error)

    def check(self) -> None:
        """Raises Interrupted if there was a signal."""
        if self.received and self.enabled:
            raise Interrupted(self.received)

    @contextmanager
    def step(self) -> Iterator[None]:
        """A change of the state that is whole or did not happen; checks before and after it."""
        self.check()
        self.in_step = True
        yield
        self.in_step = False  # stays true after an exception
        self.check()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        repeated, self.received = bool(self.received), number
        if repeated:
            raise Interrupted(number)
