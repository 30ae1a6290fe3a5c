"""Runs a target in a process of its own, with a watchdog: a crash of an extension module, a hang or
memory without bound ends one input and not the run."""

from __future__ import annotations

import faulthandler
import itertools
import logging
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from .target import Crash, Target, make_input, run_call, write_files

MAX_SECONDS = 5.0
"""Of processor time that one input takes."""
MAX_WAIT = 20.0
"""Seconds by the clock, after which the process is killed; the machine may be busy."""
MAX_BYTES = 512 << 20
"""Of memory that one input takes."""
ADDRESS_SPACE = 4 << 30
"""Beyond what the process has before the first input: no input takes the machine down."""
SAVED = 3
"""Inputs that are kept of each kind of crash."""
ERRORS = "stderr.txt"
"""What the process of a target printed about its last input."""


@dataclass
class Summary:
    """What became of a target's inputs.

    Attributes:
        crashes: number by kind.
        seconds: of processor time, of all calls.
        peak: bytes of memory that an input took at most.
        slowest: (seconds, number) of the slowest input.
    """

    inputs: int = 0
    refused: int = 0
    accepted: int = 0
    crashes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    peak: int = 0
    slowest: tuple[float, int] = (0.0, -1)


def run_target(
    target: Target,
    *,
    seed: int,
    inputs: int | None,
    seconds: float | None,
    failures: Path,
) -> Summary:
    """Calls a target with inputs 0, 1, ... until there were enough or the time is over.

    Args:
        failures: folder that inputs are saved in which the target did not accept or refuse.
    """
    context = multiprocessing.get_context("fork")
    summary = Summary()
    end = None if seconds is None else time.monotonic() + seconds
    work = Path(tempfile.mkdtemp(prefix="fuzz-"))
    number = 0
    try:
        while (inputs is None or number < inputs) and (end is None or time.monotonic() < end):
            started = context.Value("d", 0.0, lock=False)
            current = context.Value("q", number, lock=False)
            receiver, sender = context.Pipe(duplex=False)
            child = context.Process(
                target=_work,
                args=(target, work, sender, started, current),
                kwargs={"seed": seed, "first": number, "last": inputs, "end": end},
                daemon=True,
            )
            child.start()
            sender.close()
            hung = _watch(child, receiver, started, summary, failures, target, work)
            number = current.value
            if not (hung or child.exitcode):
                break
            where = f"longer than {MAX_WAIT:g} s by the clock" if hung else f"exit {child.exitcode}"
            printed = (work / ERRORS).read_text(errors="replace")[-4000:]
            _count(summary, target, work, failures, number, Crash(where, f"{where}\n{printed}"))
            number += 1
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return summary


def _watch(
    child: Any,
    receiver: Connection,
    started: Any,
    summary: Summary,
    failures: Path,
    target: Target,
    work: Path,
) -> bool:
    """Adds up what a child reports until it ends; whether it had to be killed."""
    while True:
        try:
            while receiver.poll(0.1):
                number, outcome, seconds, peak = receiver.recv()
                summary.seconds += seconds
                summary.peak = max(summary.peak, peak)
                summary.slowest = max(summary.slowest, (seconds, number))
                if isinstance(outcome, Crash):
                    _count(summary, target, work, failures, number, outcome)
                    continue
                summary.inputs += 1
                summary.accepted += outcome
                summary.refused += not outcome
        except EOFError:
            child.join()
            return False
        if started.value and time.monotonic() - started.value > MAX_WAIT:
            child.kill()
            child.join()
            return True


def _count(
    summary: Summary, target: Target, work: Path, failures: Path, number: int, crash: Crash
) -> None:
    """Counts a crash and saves its input: the folder that the child called the target with."""
    summary.inputs += 1
    summary.crashes[crash.where] += 1
    saved = work / f"saved-{number}"
    source = saved if saved.is_dir() else work / "input"
    if summary.crashes[crash.where] <= SAVED and source.is_dir():
        folder = failures / target.name / str(number)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, folder)
        (failures / target.name / f"{number}.txt").write_text(crash.text, errors="replace")
    shutil.rmtree(saved, ignore_errors=True)


def _work(
    target: Target,
    work: Path,
    sender: Connection,
    started: Any,
    current: Any,
    *,
    seed: int,
    first: int,
    last: int | None,
    end: float | None,
) -> None:
    """The child: calls the target and reports (number, outcome, seconds, bytes)."""
    logging.disable(logging.CRITICAL)
    faulthandler.disable()
    errors = os.open(work / ERRORS, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    os.dup2(errors, 2)  # what C libraries print, and the last words of this process
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    folder = work / "input"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if target.prepare is not None:
        target.prepare(folder)
    seeds = target.seeds()
    for files in seeds:  # imports what is needed, which counts neither as time nor as memory
        write_files(folder, files)
        run_call(target, folder)
    _limit_memory()
    for number in itertools.count(first):
        if number == last or (end is not None and time.monotonic() > end):
            break
        current.value = number
        os.ftruncate(2, 0)
        files = make_input(target, seeds, seed=seed, number=number)
        write_files(folder, files)
        before = _reset_peak()
        started.value = time.monotonic()
        begin = time.process_time()
        outcome = run_call(target, folder)
        seconds = time.process_time() - begin
        started.value = 0.0
        peak = _peak() - before
        if not isinstance(outcome, Crash) and peak > MAX_BYTES:
            outcome = Crash(f"more than {MAX_BYTES >> 20} MiB of memory", f"{peak:,} bytes")
        if not isinstance(outcome, Crash) and seconds > MAX_SECONDS:
            outcome = Crash(f"longer than {MAX_SECONDS:g} s of processor time", f"{seconds:.1f} s")
        if isinstance(outcome, Crash):
            shutil.copytree(folder, work / f"saved-{number}", dirs_exist_ok=True)
        sender.send((number, outcome, seconds, max(peak, 0)))
        for name in files.keys() - seeds[0].keys():
            (folder / name).unlink(missing_ok=True)
    current.value = number
    sender.close()
    os._exit(0)  # not the parent's exit handlers


def _limit_memory() -> None:
    if sys.platform == "linux":
        import resource

        limit = _status("VmSize") + ADDRESS_SPACE
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _reset_peak() -> int:
    """Starts a new measurement of the peak; returns the bytes in memory."""
    if sys.platform != "linux":
        return 0
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM") if sys.platform == "linux" else 0


def _status(name: str) -> int:
    """A field of /proc/self/status in bytes."""
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{name}:", 1)[1].split(None, 1)[0]) << 10
