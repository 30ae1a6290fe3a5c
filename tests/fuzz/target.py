"""What is fuzzed, and one call of it: a parser, its sound input, and the changes to that."""

from __future__ import annotations

import shutil
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from reidkit.errors import ReidkitError

from .mutations import Files, mutate_bytes, mutate_json, mutate_table, mutate_toml

MAX_MESSAGE = 20_000
"""Characters of a refusal."""
OUTPUT = "output"
"""Folder that a call may write to, below that of its input; emptied after each call."""


@dataclass(frozen=True)
class Target:
    """One parser.

    Attributes:
        seeds: sound inputs.
        call: reads the input in a folder; a `ReidkitError` refuses it, anything else is a crash.
            It asserts what holds for all input that is accepted.
        structured: changes that keep checksums, compression or types right, so that they reach what
            is behind those; half of all inputs are made by it.
        prepare: writes files that belong to every input and are never changed.
    """

    name: str
    seeds: Callable[[], list[Files]]
    call: Callable[[Path], object]
    structured: Callable[[Random, Files], Files] | None = None
    prepare: Callable[[Path], None] | None = None


def make_input(target: Target, seeds: list[Files], *, seed: int, number: int) -> Files:
    """The input of a number: the same whenever it is made."""
    rng = Random(f"{seed}/{target.name}/{number}")
    if number < len(seeds):
        return seeds[number]
    files = dict(rng.choice(seeds))
    if target.structured is not None and rng.random() < 0.5:
        try:
            return target.structured(rng, files)
        except (ValueError, TypeError, OSError, RecursionError, OverflowError):
            pass  # a hostile value that the format's own writer refuses
    name = rng.choice(sorted(files))
    others = [other[name] for other in seeds if name in other]
    files[name] = _mutated(rng, name, files[name], others)
    return files


def _mutated(rng: Random, name: str, data: bytes, others: list[bytes]) -> bytes:
    try:
        if name.endswith(".toml"):
            return mutate_toml(rng, data)
        if name.endswith(".json"):
            return mutate_json(rng, data)
        if name.endswith((".csv", ".txt")):
            return mutate_table(rng, data)
    except (ValueError, RecursionError):
        pass  # a hostile value that cannot be written
    return mutate_bytes(rng, data, others)


def write_files(folder: Path, files: Files) -> None:
    """Writes an input over the one before."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


@dataclass(frozen=True)
class Crash:
    """What a call should not have done.

    Attributes:
        where: the exception and the innermost line of reidkit: equal for equal causes.
        text: all there is to know.
    """

    where: str
    text: str


def run_call(target: Target, folder: Path) -> Crash | bool:
    """Calls a target: whether the input was accepted, or the crash. Warnings are crashes, too."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # as image.py
            target.call(folder)
        return True
    except ReidkitError as error:
        text = str(error)
        if not text or len(text) > MAX_MESSAGE:
            return Crash("a message that is empty or very long", text[:2000])
        return False
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        return Crash(_signature(error), "".join(traceback.format_exception(error))[-4000:])
    finally:
        shutil.rmtree(folder / OUTPUT, ignore_errors=True)


def _signature(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/reidkit/" in frame.filename.replace("\\", "/")]
    place = (ours or frames)[-1]
    return f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
