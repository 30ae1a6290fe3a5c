"""Devices and providers that the machine lacks are refused before a command does anything."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from reidkit.cli import app
from reidkit.device import check_device, cuda_device_count
from reidkit.errors import ConfigError, ReidkitError, RuntimeMissing

pytestmark = pytest.mark.skipif(cuda_device_count() > 0, reason="has a CUDA device")


def commands(group: Any, name: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for word, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*name, word))
        else:
            yield (*name, word), command


COMMANDS = dict(commands(typer.main.get_command(app)))


def with_option(option: str) -> list[tuple[str, ...]]:
    return [name for name, c in COMMANDS.items() if option in {p.name for p in c.params}]


def required(command: Any) -> list[str]:
    """Values for what a command requires; none of them is an existing file."""
    arguments = []
    for parameter in command.params:
        if parameter.required:
            name = [] if parameter.param_type_name == "argument" else [parameter.opts[0]]
            arguments += [*name, "missing"]
    return arguments


def test_every_command_that_computes_has_a_device() -> None:
    computing = "demo train eval extract bench serve search attention report prepare-masks"
    assert {(word,) for word in computing.split()} <= set(with_option("device"))
    assert {("eval",), ("extract",), ("serve",)} <= set(with_option("provider"))


@pytest.mark.parametrize("name", with_option("device"), ids=" ".join)
@pytest.mark.parametrize(
    ("device", "error", "message"),
    [
        ("cuda", RuntimeMissing, "device cuda: no such CUDA device, the driver found none"),
        ("cuda:7", RuntimeMissing, "device cuda:7: no such CUDA device"),
        ("nonsense", ConfigError, "unknown device 'nonsense'"),
    ],
)
def test_a_device_that_is_not_there_is_refused_before_anything_is_read(
    name: tuple[str, ...],
    device: str,
    error: type[ReidkitError],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        app([*name, *required(COMMANDS[name]), "--device", device])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", with_option("provider"), ids=" ".join)
def test_a_provider_that_is_not_there_is_refused_before_anything_is_read(
    name: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ReidkitError, match=r"needs a CUDA device|has no cuda provider"):
        app([*name, *required(COMMANDS[name]), "--provider", "cuda"])


def test_the_demo_refuses_a_device_without_importing_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from reidkit.cli import main\n"
        "try: main(['demo', '--device', 'cuda'])\n"
        "finally: assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: device cuda") and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_device_beyond_the_last_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reidkit.device.cuda_device_count", lambda: 2)
    check_device("cuda:1")
    with pytest.raises(RuntimeMissing, match="the driver found only cuda:0, cuda:1"):
        check_device("cuda:2")
