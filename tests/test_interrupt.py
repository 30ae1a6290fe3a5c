"""Signals wait for the end of a training step, and stop a command by one line."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from reidkit.interrupt import Interrupted, Interrupts, handlers, stop_command


def send() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_the_first_signal_waits_for_the_end_of_the_step() -> None:
    steps = []
    with pytest.raises(Interrupted) as caught, Interrupts() as interrupts:
        with interrupts.step():
            send()
            steps.append("whole")
        steps.append("after")
    assert steps == ["whole"] and not interrupts.in_step
    assert caught.value.status == 143


def test_a_second_signal_does_not_wait_and_the_step_is_not_whole() -> None:
    with pytest.raises(Interrupted), Interrupts() as interrupts, interrupts.step():
        send()
        send()
    assert interrupts.in_step  # so that its state is not saved


def test_outside_of_steps_a_signal_is_noted_until_the_next_check() -> None:
    done = []
    with pytest.raises(Interrupted), Interrupts() as interrupts:
        send()
        done.append("anything between two checks is whole")
        interrupts.check()
    assert done


def test_handlers_are_restored() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with handlers(stop_command), Interrupts():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_every_signal_has_the_exit_status_of_shells(number: signal.Signals) -> None:
    with pytest.raises(Interrupted) as caught, handlers(stop_command):
        os.kill(os.getpid(), number)
    assert caught.value.status == 128 + number


def test_a_signal_that_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with handlers(stop_command):
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_processes_that_have_to_agree_only_note_the_signal() -> None:
    with Interrupts(enabled=False) as interrupts:
        send()
        with interrupts.step():
            pass
        assert interrupts.received == signal.SIGTERM


def test_a_forked_process_ends_by_sigterm_and_leaves_ctrl_c_to_its_parent() -> None:
    with handlers(stop_command):
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM


@pytest.mark.parametrize(
    ("module", "number"), [("torch", signal.SIGTERM), ("reidkit.registry", signal.SIGINT)]
)
def test_a_signal_during_an_import_ends_the_command_by_one_line(
    module: str, number: int, tmp_path: Path
) -> None:
    code = f"""
import os, sys
from reidkit.cli import main

class Signal:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), {int(number)})

sys.modules.pop({module!r}, None)
sys.meta_path.insert(0, Signal())
main(["models", "iaunet"])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stderr == "stopped while packages were imported\n"
    assert (done.returncode, done.stdout) == (128 + number, "")


@pytest.mark.parametrize(
    "place", ["reidkit.data.manifest.list_manifests", "typer.main.get_command"]
)
def test_a_signal_in_the_middle_of_a_command_ends_it_by_one_line(
    place: str, tmp_path: Path
) -> None:
    module, _, function = place.rpartition(".")
    code = f"""
import importlib, os
from reidkit.cli import main

module = importlib.import_module({module!r})
module.{function} = lambda *arguments: os.kill(os.getpid(), {int(signal.SIGTERM)})
main(["datasets", "list"])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (143, "stopped\n")


def test_a_signal_that_compiled_code_turns_into_another_error_ends_a_command_by_one_line(
    tmp_path: Path,
) -> None:
    code = f"""
import importlib, os
from reidkit.cli import main

def validate(*arguments):
    try:
        os.kill(os.getpid(), {int(signal.SIGTERM)})
    except KeyboardInterrupt as error:
        raise ValueError("building a validator failed") from None

importlib.import_module("reidkit.data.manifest").list_manifests = validate
main(["datasets", "list"])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (143, "stopped\n")


def test_a_signal_that_typer_takes_for_ctrl_c_has_its_own_exit_status(tmp_path: Path) -> None:
    code = f"""
import os
from typer.core import TyperGroup
from reidkit.cli import main

TyperGroup.make_context = lambda *arguments, **options: os.kill(os.getpid(), {int(signal.SIGHUP)})
main(["datasets", "list"])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.split()) == (129, ["stopped"])
