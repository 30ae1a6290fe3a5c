"""What is tried with a command, and what must hold afterwards.

After every fault: no file under a final name is half-written, the same command (or the one that it
names) finishes, and the results are those of an undisturbed run. Errors are one line.
"""

from __future__ import annotations

import ctypes
import errno
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .commands import Command, make_inputs
from .contents import content, files, is_temporary
from .processes import NO_FAULT, Ended, Fault, Running, run
from .small_models import use_small_models

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
RENAME_ERRORS = (errno.EXDEV, errno.ESTALE, errno.EBUSY)
PAGE = 4096


class Failure(AssertionError):
    """A condition that does not hold after a fault."""


@dataclass
class Outcomes:
    """Trials of a scenario: how many, how they ended, and what failed."""

    trials: int = 0
    statuses: dict[int, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Bench:
    """Folders of the trials: `inputs`, the working directory `work`, `log`, `reference`.

    Attributes:
        root: the folder of these.
    """

    root: Path

    @property
    def inputs(self) -> Path:
        return self.root / "inputs"

    @property
    def work(self) -> Path:
        return self.root / "work"

    @property
    def log(self) -> Path:
        return self.root / "log"

    @staticmethod
    def create(root: Path, commands: Sequence[Command]) -> Bench:
        """Generates the inputs of these commands; from now on, this process uses small models."""
        use_small_models()
        make_inputs(root / "inputs", commands)
        return Bench(root)


class Trial:
    """An undisturbed run of a command, with which disturbed ones are compared.

    Attributes:
        seconds: that it took.
        events: file-system events of it.
        sizes: bytes of each file that it has written.
    """

    def __init__(self, bench: Bench, command: Command) -> None:
        self.bench, self.command = bench, command
        command.prepare(bench.inputs, bench.work)
        self.before = {name: path.read_bytes() for name, path in files(bench.work).items()}
        ended = self.run()
        if ended.status:
            raise Failure(f"{command.name} fails undisturbed: {ended.stderr}")
        self.seconds, self.events = ended.seconds, ended.events
        found = files(bench.work)
        self.expected = {name: content(path) for name, path in found.items()}
        self.sizes = {
            name: path.lstat().st_size
            for name, path in found.items()
            if path.read_bytes() != self.before.get(name)
        }

    def run(self, fault: Fault = NO_FAULT, *, resume: bool = False) -> Ended:
        """Runs the command in the working directory."""
        arguments = self.command.arguments_in(self.bench.inputs, resume=resume)
        return run(arguments, self.bench.work, self.bench.log, fault)

    def prepare(self) -> None:
        """Makes a new working directory."""
        self.command.prepare(self.bench.inputs, self.bench.work)

    def check_whole(self) -> None:
        """Raises Failure if a final file is half-written."""
        for name, path in files(self.bench.work).items():
            if is_temporary(Path(name)):
                continue
            if name in self.before and path.read_bytes() == self.before[name]:
                continue
            try:
                found = content(path)
            except Exception as error:
                raise Failure(f"{name} is half-written: {error}") from error
            known = name in self.expected
            if path.name in self.command.history or self.command.name.startswith("index"):
                continue  # whole, of an earlier time
            if not known or found != self.expected[name]:
                raise Failure(f"{name} is not what it is without a fault")

    def complete(self) -> None:
        """Runs the same command again; raises Failure unless the results are those of the
        undisturbed run."""
        done = self.difference() == ""
        ended = self.run()
        if ended.status and not done and self._names_resume(ended):
            ended = self.run(resume=True)
        if ended.status not in (0, 2) or "Traceback" in ended.stderr:
            raise Failure(f"the same command exits by {ended.status}: {ended.last_line}")
        difference = self.difference()
        if difference:  # a command whose results are there may refuse to write them again
            raise Failure(f"after the same command {difference}; {ended.last_line}")

    def difference(self) -> str:
        """The first difference from the undisturbed run; empty if there is none."""
        found = files(self.bench.work)
        for name in sorted(found.keys() | self.expected.keys()):
            if name not in found:
                return f"{name} is missing"
            if name not in self.expected:
                return f"{name} is left"
            try:
                same = content(found[name]) == self.expected[name]
            except Exception as error:
                return f"{name} is half-written: {error}"
            if not same:
                return f"{name} differs"
        return ""

    def _names_resume(self, ended: Ended) -> bool:
        """Whether an error names the command that continues."""
        new = set(self.command.resume) - set(self.command.arguments)
        return any(word in ended.last_line for word in new)

    def check_line(self, ended: Ended, *, names_path: bool = True) -> None:
        """Raises Failure unless a command ended well, or by one line that says what is wrong and
        where."""
        text = ended.stderr
        if "Traceback" in text or ended.status not in (0, 2):
            raise Failure(f"exit status {ended.status}: {ended.last_line}")
        if ended.status == 2:
            if text.count("error:") != 1 or not ended.last_line.startswith("error:"):
                raise Failure(f"not one line: {text[-500:]}")
            if names_path and not re.search(r"\bout\b", ended.last_line):
                raise Failure(f"no file is named: {ended.last_line}")


Scenario = Callable[[Trial, random.Random, int], Iterator[tuple[str, Callable[[], Ended]]]]


def kills(
    trial: Trial, rng: random.Random, count: int
) -> Iterator[tuple[str, Callable[[], Ended]]]:
    """SIGKILL at file-system events, at sizes of a file in the middle of a write, and at times."""
    at_events = rng.sample(range(1, len(trial.events) + 1), min(count // 2, len(trial.events)))
    at_sizes = count // 5
    largest = max(trial.sizes.values())
    faults = [Fault(event=event) for event in sorted(at_events)]
    faults += [Fault(size=int(largest ** rng.random())) for _ in range(at_sizes)]
    for _ in range(count - len(faults)):
        faults.append(Fault(seconds=rng.uniform(0, trial.seconds) or 0.001))
    for fault in faults:
        yield from _killed(trial, fault)


def signals(
    trial: Trial, rng: random.Random, count: int
) -> Iterator[tuple[str, Callable[[], Ended]]]:
    """SIGTERM, SIGINT and SIGHUP in turn, half of them at events."""
    for number in range(count):
        name = SIGNALS[number % len(SIGNALS)]
        if number % 2:
            fault = Fault(event=rng.randint(1, len(trial.events)), signal=name)
        else:
            fault = Fault(seconds=rng.uniform(0, trial.seconds) or 0.001, signal=name)
        yield from _killed(trial, fault)


def _killed(trial: Trial, fault: Fault) -> Iterator[tuple[str, Callable[[], Ended]]]:
    def attempt() -> Ended:
        trial.prepare()
        ended = trial.run(fault)
        by_signal = fault.signal != signal.SIGKILL and not fault.size
        if ended.status == -fault.signal and (not ended.stderr or not trial.difference()):
            by_signal = False  # it came before the first or after the last thing that it does
        if by_signal and ended.status not in (0, 128 + fault.signal):
            raise Failure(f"exit status {ended.status} by {fault}: {ended.stderr[-500:]}")
        if by_signal and ended.status and "stopped" not in ended.last_line:
            raise Failure(f"not one line by {fault}: {ended.stderr[-500:]}")
        if by_signal and "Traceback" in ended.stderr:
            raise Failure(f"a traceback by {fault}: {ended.stderr[-500:]}")
        trial.check_whole()
        trial.complete()
        return ended

    yield str(fault), attempt


def renames(
    trial: Trial, rng: random.Random, count: int
) -> Iterator[tuple[str, Callable[[], Ended]]]:
    """Renames that fail as on a network file system, once or for ever."""
    events = [k for k, line in enumerate(trial.events, 1) if line.startswith("os.rename")]
    choices = [
        Fault(event=event, error=error, once=once)
        for event in events
        for error in RENAME_ERRORS
        for once in (True, False)
    ]
    for fault in rng.sample(choices, min(count, len(choices))):
        yield from _erroneous(trial, fault)


def removals(
    trial: Trial, rng: random.Random, count: int
) -> Iterator[tuple[str, Callable[[], Ended]]]:
    """The output folder vanishes."""
    for _ in range(count):
        fault = Fault(event=rng.randint(1, len(trial.events)), remove="out")

        def attempt(fault: Fault = fault) -> Ended:
            trial.prepare()
            ended = trial.run(fault)
            trial.check_line(ended)
            return ended

        yield str(fault), attempt


def _erroneous(trial: Trial, fault: Fault) -> Iterator[tuple[str, Callable[[], Ended]]]:
    def attempt() -> Ended:
        trial.prepare()
        ended = trial.run(fault)
        trial.check_line(ended)
        trial.check_whole()
        trial.complete()
        return ended

    yield str(fault), attempt


def full_disks(
    trial: Trial, rng: random.Random, count: int
) -> Iterator[tuple[str, Callable[[], Ended]]]:
    """A disk with room for part of the results; afterwards it has room."""
    new = [-(-size // PAGE) for size in trial.sizes.values()]
    most = sum(new, start=2) + max(new, default=0)
    pages = sorted(rng.sample(range(most), min(count, most)))
    for free in pages:

        def attempt(free: int = free) -> Ended:
            work = trial.bench.work
            with mounted(work):
                trial.prepare()
                used = _blocks(work)
                remount(work, f"nr_blocks={max(1, used + free)}")  # 0: no limit
                ended = trial.run()
                trial.check_line(ended)
                if ended.status and not re.search("No space left|Free disk", ended.last_line):
                    raise Failure(f"the cause is not stated: {ended.last_line}")
                remount(work, "size=512m")
                trial.check_whole()
                trial.complete()
                return ended

        yield f"{free} free blocks", attempt


def read_only(
    trial: Trial, rng: random.Random, count: int
) -> Iterator[tuple[str, Callable[[], Ended]]]:
    """A read-only disk."""

    def attempt() -> Ended:
        work = trial.bench.work
        with mounted(work):
            trial.prepare()
            remount(work, "ro")
            ended = trial.run()
            trial.check_line(ended)
            if ended.status != 2 or "Read-only file system" not in ended.last_line:
                raise Failure(f"exit status {ended.status}: {ended.last_line}")
            remount(work, "rw")
            trial.check_whole()
            trial.complete()
            return ended

    yield "read-only", attempt


def two_writers(
    trial: Trial, rng: random.Random, count: int
) -> Iterator[tuple[str, Callable[[], Ended]]]:
    """The same command twice, the second one a little later."""
    for _ in range(count):
        delay = rng.uniform(0, 0.8 * trial.seconds)

        def attempt(delay: float = delay) -> Ended:
            trial.prepare()
            bench = trial.bench
            arguments = trial.command.arguments_in(bench.inputs)
            first = Running(arguments, bench.work, bench.log)
            time.sleep(delay)
            second = Running(arguments, bench.work, bench.root / "log2")
            both = first.end(), second.end()
            for ended in both:
                trial.check_line(ended)
            if all(ended.status for ended in both):
                raise Failure(f"both refused: {both[0].last_line}; {both[1].last_line}")
            difference = trial.difference()
            if difference:
                raise Failure(
                    f"two at once: {difference}; {both[0].last_line}; {both[1].last_line}"
                )
            return both[1]

        yield f"a second one after {delay:.3f} s", attempt


def lost_workers(
    trial: Trial, rng: random.Random, count: int
) -> Iterator[tuple[str, Callable[[], Ended]]]:
    """A process that the command has started is killed."""
    for _ in range(count):
        delay = rng.uniform(0, trial.seconds)

        def attempt(delay: float = delay) -> Ended:
            trial.prepare()
            bench = trial.bench
            running = Running(trial.command.arguments_in(bench.inputs), bench.work, bench.log)
            time.sleep(delay)
            for child in running.children()[-1:]:
                os.kill(child, signal.SIGKILL)
            ended = running.end()
            trial.check_line(ended, names_path=False)
            trial.check_whole()
            trial.complete()
            return ended

        yield f"a worker killed after {delay:.3f} s", attempt


SCENARIOS: dict[str, Scenario] = {
    "kills": kills,
    "signals": signals,
    "renames": renames,
    "removals": removals,
    "full-disk": full_disks,
    "read-only": read_only,
    "two-writers": two_writers,
    "lost-workers": lost_workers,
}
MOUNTING = ("full-disk", "read-only")


def run_scenario(trial: Trial, scenario: str, *, seed: int, count: int) -> Outcomes:
    """Runs `count` trials of a scenario."""
    rng = random.Random(f"{trial.command.name} {scenario} {seed}")
    found = Outcomes()
    for name, attempt in SCENARIOS[scenario](trial, rng, count):
        found.trials += 1
        try:
            status = attempt().status
            found.statuses[status] = found.statuses.get(status, 0) + 1
        except (Failure, TimeoutError) as failure:
            found.failures.append(f"{trial.command.name}, {name}: {failure}")
    return found


class mounted:
    """A small file system in memory at a folder, within."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        _mount(b"tmpfs", self.folder, 0, "size=512m")

    def __exit__(self, *error: Any) -> None:
        MNT_DETACH = 2  # what a command has started may still be ending
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.umount2(os.fsencode(self.folder), MNT_DETACH):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(self.folder))


def remount(folder: Path, options: str) -> None:
    """Changes the options of `mounted`: "ro", "rw" or a number of blocks."""
    MS_RDONLY, MS_REMOUNT = 1, 32
    flags = MS_REMOUNT | (MS_RDONLY if options == "ro" else 0)
    _mount(b"tmpfs", folder, flags, "" if options in ("ro", "rw") else options)


def _mount(kind: bytes, folder: Path, flags: int, options: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", os.fsencode(folder), kind, flags, options.encode() or None):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(folder))


def _blocks(folder: Path) -> int:
    """Blocks in use."""
    found = os.statvfs(folder)
    return found.f_blocks - found.f_bfree


def may_mount() -> bool:
    """Whether this process may mount file systems of its own; if so, it leaves the others'."""
    CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 0x40000
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "unshare") or libc.unshare(CLONE_NEWNS):
        return False
    return bool(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) == 0)
