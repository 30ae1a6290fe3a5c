"""Runs a command in a forked process that meets a fault: at a moment, at a file-system event, or in
the middle of a write.

The process that forks has imported torch and reidkit, so that a command starts at once.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reidkit.cli import main

EVENTS = {
    "open",
    "os.link",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.symlink",
    "os.truncate",
    "sqlite3.connect",
}
"""Audit events that change files; `open` counts if it is for writing."""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
TIME_LIMIT = 300.0
"""Seconds after which a command counts as hanging."""
STDERR = "stderr.txt"


@dataclass(frozen=True)
class Fault:
    """What happens to a command.

    Attributes:
        event: number of the file-system event, from 1, at which `signal`, `error` or `remove`
            happens; 0: never.
        seconds: after which `signal` is sent; 0: never.
        size: bytes of a file at which a write ends the process (SIGXFSZ); 0: no limit.
        signal: number.
        error: errno that renames raise from the event on.
        once: only at the event itself.
        remove: folder that vanishes at the event.
    """

    event: int = 0
    seconds: float = 0.0
    size: int = 0
    signal: int = signal.SIGKILL
    error: int = 0
    once: bool = True
    remove: str = ""

    def __str__(self) -> str:
        name = errno.errorcode[self.error] if self.error else signal.Signals(self.signal).name
        if self.remove:
            name = f"removal of {self.remove}"
        if self.size:
            return f"kill at {self.size:,} bytes of a file"
        if self.error and not self.once:
            name = f"{name} for ever"
        return f"{name} at event {self.event}" if self.event else f"{name} at {self.seconds:.3f} s"


NO_FAULT = Fault()


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        status: exit status; that of a signal is negative.
        stderr: all of it.
        seconds: that it took.
        events: file-system events, as "event path"; only of a command that ended by itself.
    """

    status: int
    stderr: str
    seconds: float
    events: tuple[str, ...] = ()

    @property
    def last_line(self) -> str:
        lines = self.stderr.strip().splitlines()
        return lines[-1] if lines else ""


class Running:
    """A command in a process of its own.

    Args:
        arguments: of `reidkit`.
        folder: working directory.
        log: folder for its output, outside of `folder`.
    """

    def __init__(
        self, arguments: Sequence[str], folder: Path, log: Path, fault: Fault = NO_FAULT
    ) -> None:
        log.mkdir(parents=True, exist_ok=True)
        self.log, self.fault = log, fault
        self.started = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _run(arguments, folder, log, fault)

    def end(self) -> Ended:
        """Waits for the end; processes that it has left are killed.

        Raises:
            TimeoutError: it takes longer than `TIME_LIMIT`.
        """
        sent = not self.fault.seconds
        while True:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            seconds = time.monotonic() - self.started
            if found:
                break
            if not sent and seconds >= self.fault.seconds:
                os.kill(self.pid, self.fault.signal)
                sent = True
            if seconds > TIME_LIMIT:
                self._kill_group()
                os.waitpid(self.pid, 0)
                raise TimeoutError(f"still running after {TIME_LIMIT:.0f} s")
            time.sleep(0.002)
        events = self.log / "events.txt"
        stderr = (self.log / STDERR).read_text(errors="replace")
        return Ended(
            os.waitstatus_to_exitcode(status),
            stderr,
            seconds,
            tuple(events.read_text().splitlines()) if events.exists() else (),
        )

    def children(self) -> list[int]:
        """Processes that the command has started."""
        try:
            text = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        except FileNotFoundError:
            return []
        return [int(pid) for pid in text.split()]

    def _kill_group(self) -> None:
        os.killpg(self.pid, signal.SIGKILL)


def run(arguments: Sequence[str], folder: Path, log: Path, fault: Fault = NO_FAULT) -> Ended:
    """Runs a command to its end; see `Running`."""
    return Running(arguments, folder, log, fault).end()


def _run(arguments: Sequence[str], folder: Path, log: Path, fault: Fault) -> None:
    """In the child process: does not return."""
    status = 70
    try:
        os.setpgrp()
        os.chdir(folder)
        for number, name in ((1, "stdout.txt"), (2, STDERR)):
            file = os.open(log / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, number)
        (log / "events.txt").unlink(missing_ok=True)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        if fault.size:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (fault.size, fault.size))
        events = _watch(fault, folder, log)
        try:
            main(list(arguments))
            status = 0
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else int(bool(ended.code))
        if fault == NO_FAULT:
            events("end", "")
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _watch(fault: Fault, folder: Path, log: Path) -> Callable[[str, str], None]:
    """Counts file-system events in this process, and lets the fault happen at its event.

    Returns:
        function that is called with an event; "end" writes the list of events.
    """
    process, seen = os.getpid(), list[str]()
    busy = False

    def event(name: str, path: str) -> None:
        nonlocal busy
        if busy or os.getpid() != process:
            return
        busy = True
        try:
            if name == "end":
                (log / "events.txt").write_text("\n".join(seen))
                return
            seen.append(f"{name} {path}")
            happens = len(seen) == fault.event
            if fault.error:
                later = not fault.once and len(seen) > fault.event > 0
                if name == "os.rename" and (happens or later):
                    raise OSError(fault.error, os.strerror(fault.error), path)
            elif happens and fault.remove:
                shutil.rmtree(fault.remove, ignore_errors=True)
            elif happens:
                os.kill(process, fault.signal)
        finally:
            busy = False

    def audit(name: str, arguments: tuple[Any, ...]) -> None:
        if name not in EVENTS or not arguments:
            return
        if name == "open":
            flags = arguments[2]
            if not isinstance(flags, int) or not flags & _WRITING:
                return
        path = arguments[1] if name in ("os.link", "os.rename", "os.symlink") else arguments[0]
        if isinstance(path, str | bytes | os.PathLike) and _is_inside(path, folder):
            event(name, os.fsdecode(path))

    sync = os.fsync

    def fsync(file: Any) -> None:
        event("os.fsync", "")
        sync(file)
        event("os.fsync done", "")

    os.fsync = fsync
    sys.addaudithook(audit)
    return event


def _is_inside(path: Any, folder: Path) -> bool:
    return Path(os.path.normpath(Path.cwd() / os.fsdecode(path))).is_relative_to(folder)
