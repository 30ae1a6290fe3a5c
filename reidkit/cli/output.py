"""What commands print: results on stdout, progress on stderr."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any


def print_json(document: Any) -> None:
    """Prints the command's JSON document."""
    print(json.dumps(document, indent=2, default=str))


@contextlib.contextmanager
def progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """Yields `on_progress(done, total)`: a bar with rate and time left on a terminal, a final line
    elsewhere."""
    if not sys.stderr.isatty():
        seen = [0, 0]

        def remember(done: int, total: int) -> None:
            seen[:] = [done, total]

        yield remember
        print(f"{title}: {seen[0]} of {seen[1]}", file=sys.stderr)
        return

    with progress_bar(title) as update:
        yield lambda done, total: update(completed=done, total=total)


@contextlib.contextmanager
def progress_bar(title: str) -> Iterator[Callable[..., None]]:
    """Yields `update(completed=, total=, note=)` of a bar with rate and time left."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None, rate="", note="")

        def update(**fields: Any) -> None:
            speed = bar.tasks[0].speed
            bar.update(task, **fields, rate=f"{speed:.3g}/s" if speed else "")

        yield update


@contextlib.contextmanager
def stage_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Yields `on_progress(stage, done, total)`: one progress display per stage."""
    with contextlib.ExitStack() as stack:
        current: list[tuple[str, Callable[[int, int], None]]] = []

        def show(stage: str, done: int, total: int) -> None:
            if not current or current[-1][0] != stage:
                stack.close()  # ends the previous display
                current.append((stage, stack.enter_context(progress(stage))))
            current[-1][1](done, total)

        yield show


def mean_cell(mean: float, std: float) -> str:
    """Cell of a table: "81.2 ± 0.3"; "-" without a mean."""
    if math.isnan(mean):
        return "-"
    return f"{mean:.1f}" + ("" if math.isnan(std) else f" ± {std:.1f}")


def print_table(header: list[str], rows: list[list[str]], *, title: str) -> None:
    """Prints a table: first column left-aligned, the others right-aligned."""
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    print(title)
    for row in [header, *rows]:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        cells[0] = row[0].ljust(widths[0])
        print("  " + "  ".join(cells))
