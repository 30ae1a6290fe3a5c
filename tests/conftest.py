"""Small data that many tests share: drawn once per session."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from reidkit.synthetic import LAYOUTS

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 6 training and 5 test people in the Market-1501 layout, with label maps."""
    root = tmp_path_factory.mktemp("synthetic") / "market"
    LAYOUTS["market1501"](root, train_pids=6, test_pids=5, seed=1, workers=1)
    return root


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Runs `reidkit` as a user does, in an empty working directory."""

    def call(*args: object, status: int = 0) -> subprocess.CompletedProcess[str]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("REIDKIT_")}
        done = subprocess.run(
            [sys.executable, "-m", "reidkit", *map(str, args)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment,
            timeout=300,
            check=False,
        )
        assert done.returncode == status, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return call
