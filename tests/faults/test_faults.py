"""Commands that are killed, stopped or run out of disk leave nothing half-written, and the same
command finishes: a few seeded trials. All of them: python -m tests.faults."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = ("datasets-unpack", "datasets-init-overwrite")


@pytest.mark.skipif(sys.platform != "linux", reason="needs fork and Linux's signals")
def test_nothing_is_half_written_and_the_same_command_finishes(tmp_path: Path) -> None:
    repository = Path(__file__).parents[2]
    chosen = [part for name in COMMANDS for part in ("--command", name)]
    found = subprocess.run(
        [
            *(sys.executable, "-m", "tests.faults", *chosen, "--folder", str(tmp_path)),
            *("--kills", "3", "--trials", "1"),
        ],
        cwd=repository,
        env={**os.environ, "PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    rows = [line.split() for line in found.stdout.splitlines()[1:]]
    assert {row[0] for row in rows} == set(COMMANDS)
    assert {row[1] for row in rows} >= {"kills", "signals", "renames", "two-writers"}
