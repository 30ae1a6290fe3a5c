"""Every parser accepts or refuses damaged and hostile input; the fuzzer itself notices what it is
there for. `python -m tests.fuzz` does the same for as long as one likes."""

from __future__ import annotations

import mmap
import os
import shutil
import time
import warnings
from pathlib import Path

import pytest

from reidkit.errors import DataError

from . import runner
from .runner import Summary, run_target
from .target import Crash, Target, make_input, run_call, write_files
from .targets import TARGETS

INPUTS = 25


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_damaged_and_hostile_input_is_accepted_or_refused(target: Target, tmp_path: Path):
    if target.name == "index-faiss":
        pytest.importorskip("faiss")
    folder = tmp_path / "input"
    folder.mkdir()
    if target.prepare is not None:
        target.prepare(folder)
    seeds = target.seeds()
    for number in range(INPUTS):
        write_files(folder, make_input(target, seeds, seed=0, number=number))
        outcome = run_call(target, folder)
        assert not isinstance(outcome, Crash), f"input {number}: {outcome.text}"


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_inputs_are_known_by_seed_and_number(target: Target):
    if target.name in ("index", "index-faiss", "cuhk03-release", "zip"):
        pytest.skip("its sound files contain the time")
    seeds = target.seeds()
    first, again = (make_input(target, seeds, seed=7, number=40) for _ in range(2))
    assert first == again


def _text(folder: Path) -> str:
    return (folder / "text").read_bytes().decode("latin-1")


def _accepts_or_refuses(folder: Path) -> None:
    if len(_text(folder)) % 2:
        raise DataError("odd")


def _fails(folder: Path) -> None:
    raise KeyError(_text(folder)[:1])


def _warns(folder: Path) -> None:
    warnings.warn("old", DeprecationWarning, stacklevel=1)


def _ends(folder: Path) -> None:
    if _text(folder) != SOUND:
        os.abort()


def _hangs(folder: Path) -> None:
    if _text(folder) != SOUND:
        time.sleep(60)


def _fills_memory(folder: Path) -> None:
    if _text(folder) != SOUND:
        with mmap.mmap(-1, 50 << 20) as memory:  # given back at once, unlike malloc's
            for page in range(0, len(memory), mmap.PAGESIZE):
                memory[page] = 1


SOUND = "sound input"


def _run(call: object, folder: Path) -> Summary:
    target = Target("toy", lambda: [{"text": SOUND.encode()}], call)  # type: ignore[arg-type]
    return run_target(target, seed=0, inputs=4, seconds=None, failures=folder / "failures")


def test_accepted_and_refused_inputs_are_counted(tmp_path: Path):
    summary = _run(_accepts_or_refuses, tmp_path)
    assert summary.inputs == summary.accepted + summary.refused == 4
    assert summary.refused > 0 and not summary.crashes
    assert not (tmp_path / "failures").exists()


@pytest.mark.parametrize(
    ("call", "found", "count"),
    [
        (_fails, "KeyError at test_fuzz", 4),
        (_warns, "DeprecationWarning", 4),
        (_ends, "exit -6", 3),
    ],
)
def test_failures_are_counted_and_saved(tmp_path: Path, call: object, found: str, count: int):
    summary = _run(call, tmp_path)
    assert summary.inputs == 4
    ((where, crashes),) = summary.crashes.items()
    assert where.startswith(found) and crashes == count
    saved = [path for path in (tmp_path / "failures" / "toy").iterdir() if path.is_dir()]
    assert len(saved) == runner.SAVED
    again = Target("toy", list, call)  # type: ignore[arg-type]
    if call is not _ends:
        assert all(isinstance(run_call(again, folder), Crash) for folder in saved)


def test_a_hang_ends_one_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(runner, "MAX_WAIT", 0.5)
    assert _run(_hangs, tmp_path).crashes == {"longer than 0.5 s by the clock": 3}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measured on Linux alone")
def test_too_much_memory_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(runner, "MAX_BYTES", 20 << 20)
    assert _run(_fills_memory, tmp_path).crashes == {"more than 20 MiB of memory": 3}


def test_the_command_repeats_a_saved_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from . import __main__ as command

    folder = tmp_path / "saved"
    write_files(folder, {"a.png": b"not an image"})
    target = next(target for target in TARGETS if target.name == "label-maps")
    assert target.prepare is not None
    target.prepare(folder)
    arguments = ["fuzz", "--parser", "label-maps", "--repeat", str(folder)]
    monkeypatch.setattr("sys.argv", arguments)
    assert command.main() == 0
    assert capsys.readouterr().out == "refused\n"
    shutil.rmtree(folder)
