"""The sweeps in docs/training.md run as they are written, on a small data set."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from reidkit.checkpoint import read_header
from reidkit.config import read_toml

DOCS = Path(__file__).parents[2] / "docs" / "training.md"

SMALL = (
    "--set arch.backbone=resnet18 --size 32x16 --weights none --epochs 1 --batch 16 --workers 0 "
    "--device cpu"
)

OPTUNA = '''
"""Stands in for Optuna: two trials, at the lower and the upper bounds."""

class Trial:
    def __init__(self, number):
        self.number, self.params = number, {}

    def suggest_float(self, name, low, high, *, log=False):
        self.params[name] = (low, high)[self.number]
        return self.params[name]

class Study:
    def optimize(self, objective, n_trials):
        assert n_trials >= 2
        trials = [Trial(number) for number in range(2)]
        self.best_params = max(trials, key=objective).params

def create_study(*, direction):
    assert direction == "maximize"
    return Study()
'''


def block(containing: str) -> str:
    """The code block of docs/training.md that contains a text, with three training identities of
    the small data set held out."""
    section = DOCS.read_text().partition("## Sweeps\n")[2].partition("\n## ")[0]
    blocks: list[str] = re.findall(r"```\w+\n(.*?)```", section, re.DOTALL)
    (found,) = (code for code in blocks if containing in code)
    return found.replace("--val-fraction 0.1", "--val-fraction 0.5")


@pytest.fixture
def execute(market: Path, tmp_path: Path) -> Callable[..., str]:
    """Runs a program in an empty folder where `reidkit` trains small networks; gives its stdout."""
    executables = tmp_path / "bin"
    executables.mkdir()
    script = executables / "reidkit"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m reidkit "$@" {SMALL}\n')
    script.chmod(0o755)
    (tmp_path / "optuna.py").write_text(OPTUNA)
    root = str(DOCS.parents[1])
    environment = {
        **os.environ,
        "PATH": f"{executables}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join((root, str(tmp_path))),
        "REIDKIT_DATA": str(market),
    }

    def call(*command: str) -> str:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


def settings(run: Path) -> dict[str, object]:
    table = read_toml(run / "config.toml")
    return {
        "lr": table["optim"]["lr"],
        "margin": table["loss"]["margin"],
        "seed": table["seed"],
        "chosen_by": read_header(run / "model.safetensors").metrics["chosen_by"],
    }


HELD_OUT = "50% of the training identities, held out"


def test_the_shell_loop_trains_every_setting_and_the_table_lists_them(
    execute: Callable[..., str], tmp_path: Path
) -> None:
    loop = block("for seed in")
    shorter = loop.replace("1e-4 3.5e-4 1e-3", "1e-4 1e-3").replace("0 1 2;", "3;")
    assert shorter.count("1e-4 1e-3;") == shorter.count("in 3;") == 1
    execute("bash", "-euo", "pipefail", "-c", shorter)

    runs = tmp_path / "runs" / "sweep"
    for name, lr in (("lr1e-4-seed3", 1e-4), ("lr1e-3-seed3", 1e-3)):
        expected = {"lr": lr, "margin": 0.3, "seed": 3, "chosen_by": HELD_OUT}
        assert settings(runs / name) == expected

    table = execute(sys.executable, "-c", block("glob"))
    validation = read_header(runs / "lr1e-4-seed3" / "model.safetensors").metrics["validation"]
    assert len(table.splitlines()) == 2
    assert f"lr1e-4-seed3: mAP {100 * validation['mAP']:.1f} on held-out identities" in table


def test_the_optuna_block_maximizes_the_map_of_held_out_identities(
    execute: Callable[..., str], tmp_path: Path
) -> None:
    best = execute(sys.executable, "-c", block("import optuna"))

    runs = [tmp_path / "runs" / "optuna" / str(number) for number in range(2)]
    bounds = ({"lr": 1e-5, "margin": 0.1}, {"lr": 1e-3, "margin": 0.5})
    for run, chosen in zip(runs, bounds, strict=True):
        assert settings(run) == {**chosen, "seed": 0, "chosen_by": HELD_OUT}
    maps = [read_header(run / "model.safetensors").metrics["validation"]["mAP"] for run in runs]
    assert best.strip() == str(bounds[maps.index(max(maps))])
