"""The smoke test of `reidkit reproduce`."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reidkit.cli.output import print_json

if TYPE_CHECKING:
    from reidkit.reproduce.smoke import SmokeResult

log = logging.getLogger(__name__)


def run_smoke(
    name: str | None,
    part: str | None,
    assignments: Sequence[str],
    out: Path | None,
    device: str,
    workers: int,
    *,
    json: bool,
) -> None:
    """Runs the smoke test of the named tables and prints one line per row, and a tally.

    Args:
        part: "K/N", or None for the whole.
        assignments: settings on top of the rows', as after `--set`.
        out: folder of the generated data; None: runs/reproduce/smoke.
    Raises:
        ReidkitError: if a row failed, after printing.
    """
    from reidkit.config import set_layer
    from reidkit.device import torch_device
    from reidkit.errors import ReidkitError
    from reidkit.reproduce.smoke import plan_smoke
    from reidkit.reproduce.smoke import smoke as run_rows

    overrides = (set_layer(assignments),)
    runs = plan_smoke(name, overrides=overrides, part=(1, 1) if part is None else _part(part))
    started = time.perf_counter()
    done: list[SmokeResult] = []

    def on_result(result: SmokeResult) -> None:
        done.append(result)
        table, row = result.run.rows[0]
        state = f"failed: {result.error}" if result.error else "ran"
        log.info("[%d/%d] %s %s: %s", len(done), len(runs), table, row.name, state)

    results = run_rows(
        runs,
        folder=out or Path("runs/reproduce/smoke"),
        device=torch_device(device),
        workers=workers,
        overrides=overrides,
        on_result=on_result,
    )
    seconds = time.perf_counter() - started
    rows = sum(len(result.run.rows) for result in results)
    failed = sum(len(result.run.rows) for result in results if result.error)
    if json:
        print_json({"rows": _document(results), "failed": failed, "seconds": seconds})
    else:
        _print(results)
        print(
            f"{rows} rows in {len(results)} runs: {rows - failed} ran, {failed} failed, "
            f"{seconds / 60:.1f} minutes"
        )
    if failed:
        raise ReidkitError(f"{failed} of {rows} rows failed; the table gives the reasons")


def _part(text: str) -> tuple[int, int]:
    """ "3/40" -> (3, 40)."""
    from reidkit.errors import ConfigError

    k, slash, n = text.partition("/")
    if not (slash and k.isdecimal() and n.isdecimal()):
        raise ConfigError(f"--part {text}: write K/N, such as 3/40")
    return int(k), int(n)


def _document(results: Sequence[SmokeResult]) -> list[dict[str, Any]]:
    return [
        {
            "table": table,
            "row": row.name,
            "arch": row.arch,
            "dataset": result.run.dataset,
            "ran": not result.error,
            "reason": result.error or None,
            "seconds": result.seconds,
        }
        for result in results
        for table, row in result.run.rows
    ]


def _print(results: Sequence[SmokeResult]) -> None:
    for result in results:
        first = result.run.rows[0]
        for table, row in result.run.rows:
            is_first = (table, row) == first
            seconds = f"{result.seconds:.1f} s" if is_first else ""
            state = f"failed: {result.error}" if result.error else "ran"
            same = "" if is_first else f" (as {first[0]} {first[1].name})"
            print(f"{table:17} {row.name:22} {result.run.dataset:22} {seconds:>7}  {state}{same}")
