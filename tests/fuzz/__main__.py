"""Fuzzes reidkit's parsers: damaged and hostile input must be accepted or refused by a message.

    python -m tests.fuzz --minutes 10
    python -m tests.fuzz --parser features-hdf5 --inputs 10000 --seed 1
    python -m tests.fuzz --parser features-hdf5 --repeat fuzz-failures/features-hdf5/4711

A crash is an exception that is no ReidkitError, a Python warning, more than 5 seconds of processor
time, more than 512 MiB of memory, or the end of the process. Its input is saved. Exit status 1:
there were crashes.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from .runner import Summary, run_target
from .target import Crash, Target, run_call
from .targets import TARGETS

HEADER = f"{'parser':22}{'inputs':>8}{'refused':>9}{'accepted':>9}{'crashes':>9}" + (
    f"{'seconds':>9}{'MiB':>6}{'slowest':>12}"
)


def main() -> int:
    options = _options()
    chosen = [target for target in TARGETS if target.name in options.parser or not options.parser]
    if options.repeat is not None:
        return _repeat(chosen, options.repeat)
    minutes = options.minutes
    if minutes is None and options.inputs is None:
        minutes = 10.0
    print(HEADER, flush=True)
    crashed = False
    for target in chosen:
        summary = run_target(
            target,
            seed=options.seed,
            inputs=options.inputs,
            seconds=None if minutes is None else 60 * minutes / len(chosen),
            failures=options.failures,
        )
        print(_row(target, summary), flush=True)
        for where, count in summary.crashes.most_common():
            print(f"    {count} x {where}", flush=True)
        if summary.crashes:
            crashed = True
            print(
                f"    repeat: python -m tests.fuzz --parser {target.name} --repeat "
                f"{options.failures / target.name}/NUMBER",
                flush=True,
            )
    return int(crashed)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    names = [target.name for target in TARGETS]
    parser.add_argument("--minutes", type=float, help="time for all parsers together [10]")
    parser.add_argument("--inputs", type=int, help="number of inputs of each parser")
    parser.add_argument(
        "--parser", action="append", default=[], choices=names, metavar="NAME",
        help=f"only this one, repeatable: {', '.join(names)}",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="equal seeds give equal inputs [0]")
    parser.add_argument(
        "--failures", type=Path, default=Path("fuzz-failures"), metavar="DIR",
        help="folder that inputs which crashed are saved in [fuzz-failures]",
    )  # fmt: skip
    parser.add_argument(
        "--repeat", type=Path, metavar="DIR", help="call --parser with a saved input"
    )
    options = parser.parse_args()
    if options.repeat is not None and len(options.parser) != 1:
        parser.error("--repeat needs --parser NAME, the parser that the input is of")
    return options


def _row(target: Target, summary: Summary) -> str:
    seconds, number = summary.slowest
    slowest = f"{1000 * seconds:.0f} ms #{number}"
    crashes = sum(summary.crashes.values())
    return (
        f"{target.name:22}{summary.inputs:8}{summary.refused:9}{summary.accepted:9}"
        f"{crashes:9}{summary.seconds:9.1f}{summary.peak >> 20:6}{slowest:>15}"
    )


def _repeat(targets: list[Target], saved: Path) -> int:
    """Calls the target with a copy of a saved input; prints what becomes of it."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(saved, folder, dirs_exist_ok=True)
        outcome = run_call(targets[0], Path(folder))
    if isinstance(outcome, Crash):
        print(outcome.text)
        return 1
    print("accepted" if outcome else "refused")
    return 0


if __name__ == "__main__":
    sys.exit(main())
