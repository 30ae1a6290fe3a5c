"""Lets every writing command of reidkit meet faults, and checks what it leaves.

    python -m tests.faults
    python -m tests.faults --command train --scenario kills --kills 100 --seed 7

Exit status 1: a condition did not hold.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import shutil
import sys
import tempfile
from pathlib import Path

import torch

import reidkit

from .commands import COMMANDS, Command
from .scenarios import MOUNTING, SCENARIOS, Bench, Failure, Trial, may_mount, run_scenario

HEADER = f"{'command':24}{'scenario':14}{'trials':>7}{'failed':>7}  exit statuses"
WORKERS = {"train-workers", "datasets-synth-workers"}


def import_everything() -> None:
    """So that the processes of the commands import nothing."""
    for module in pkgutil.walk_packages(reidkit.__path__, "reidkit."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in ("onnxruntime", "onnxscript", "faiss", "matplotlib.backends.backend_agg"):
        importlib.import_module(name)
    torch.set_num_threads(1)


def main() -> int:
    options = _options()
    import_everything()
    mounts = may_mount()
    folder = Path(tempfile.mkdtemp(prefix="reidkit-faults-", dir=options.folder))
    failed = False
    try:
        chosen = [c for c in COMMANDS if not options.command or c.name in options.command]
        bench = Bench.create(folder, chosen)
        print(HEADER, flush=True)
        for command in chosen:
            failed |= _try(bench, command, options, mounts=mounts)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return int(failed)


def _try(bench: Bench, command: Command, options: argparse.Namespace, *, mounts: bool) -> bool:
    """Runs the scenarios of a command and prints a line for each; returns whether one failed."""
    try:
        trial = Trial(bench, command)
    except Failure as failure:
        print(failure, flush=True)
        return True
    failed = False
    for scenario in options.scenario or SCENARIOS:
        no_workers = scenario == "lost-workers" and command.name not in WORKERS
        if no_workers or (scenario in MOUNTING and not mounts):
            continue
        count = options.kills if scenario == "kills" else options.trials
        found = run_scenario(trial, scenario, seed=options.seed, count=count)
        ended = "  ".join(f"{n} x {s}" for s, n in sorted(found.statuses.items()))
        row = f"{command.name:24}{scenario:14}{found.trials:7}{len(found.failures):7}"
        print("\n    ".join([f"{row}  {ended}", *found.failures]), flush=True)
        failed |= bool(found.failures)
    return failed


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    names = [command.name for command in COMMANDS]
    parser.add_argument("--command", action="append", choices=names, help="default: all")
    parser.add_argument("--scenario", action="append", choices=[*SCENARIOS], help="default: all")
    parser.add_argument("--kills", type=int, default=30, help="kills per command")
    parser.add_argument("--trials", type=int, default=12, help="other faults per command and kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where temporary files are, such as /dev/shm")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
