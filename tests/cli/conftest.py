"""Commands run in this process, in an empty folder, and a small trained run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from reidkit.cli import main

TINY = [
    *("--set", "arch.backbone=resnet18", "--set", "arch.stages=[2]", "--size", "64x32"),
    *("--weights", "none", "--epochs", "1", "--batch", "16", "--workers", "0", "--device", "cpu"),
]


@pytest.fixture
def command(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[object, str, str]]:
    """Runs a command in this process, in an empty folder; gives status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REIDKIT_DATA", raising=False)

    def call(*arguments: object) -> tuple[object, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        found = capsys.readouterr()
        return stopped.value.code, found.out, found.err

    return call


@pytest.fixture
def run(command: Callable[..., tuple[object, str, str]]) -> Callable[..., str]:
    """Runs a command that must succeed; gives its stdout."""

    def call(*arguments: object) -> str:
        status, out, err = command(*arguments)
        assert status == 0, err
        return out

    return call


@pytest.fixture
def refuse(command: Callable[..., tuple[object, str, str]]) -> Callable[..., str]:
    """Runs a command that must fail by status 2 with one message; gives the message."""

    def call(*arguments: object) -> str:
        status, _, err = command(*arguments)
        assert status == 2, f"{status}: {err}"
        assert "Traceback" not in err
        if "error: " not in err:  # Typer's own box: a value that is not one of an option's choices
            return " ".join(err.replace("│", " ").split())
        message = err[err.index("error: ") :]
        assert message.count("error:") == 1
        return message

    return call


@pytest.fixture(scope="session")
def trained(market: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with masks/ and one run in it, made by the commands themselves."""
    folder = tmp_path_factory.mktemp("work")
    for arguments in (
        ["prepare-masks", "--dataset", str(market)],
        ["train", "--arch", "iaunet", "--dataset", str(market), "-o", "runs/one", *TINY],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "reidkit", *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    return folder
