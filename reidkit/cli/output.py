"""What commands print: results on stdout, progress on stderr."""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

LINE_SECONDS = 30.0
"""Between two lines of progress where stderr is no terminal."""


def print_json(document: Any) -> None:
    """Prints the command's JSON document."""
    print(json.dumps(document, indent=2, default=str))


@contextlib.contextmanager
def progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """Yields `on_progress(done, total)`: a bar with rate and time left on a terminal, elsewhere a
    line at the end and every LINE_SECONDS before it."""
    if not sys.stderr.isatty():
        lines = _ProgressLines(title)
        yield lines.update
        print(f"{title}: {lines.done} of {lines.total}", file=sys.stderr)
        return

    with progress_bars() as add:
        update = add(title)
        yield lambda done, total: update(completed=done, total=total, count=f"{done:,}/{total:,}")


class _ProgressLines:
    """Progress as lines of text with rate and time left."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.done = self.total = 0
        self.first: tuple[float, int] | None = None
        self.printed = time.monotonic()

    def update(self, done: int, total: int) -> None:
        self.done, self.total = done, total
        now = time.monotonic()
        start, before = self.first = self.first or (now, done)
        if now - self.printed < LINE_SECONDS or done in (before, total):
            return
        self.printed = now
        rate = (done - before) / (now - start)
        left = datetime.timedelta(seconds=round((total - done) / rate))
        print(f"{self.title}: {done} of {total}, {rate:.3g}/s, {left} left", file=sys.stderr)


@contextlib.contextmanager
def progress_bars() -> Iterator[Callable[..., Callable[..., None]]]:
    """Yields `add(title, shown=True)`, which adds a bar and returns its `update(**fields)`.

    Fields are those of rich's `Progress.update`, and the texts `count`, `main` and `note`. Only
    `note` is cut off where the terminal is narrow. Log lines appear above the bars.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    def fixed() -> Column:
        return Column(no_wrap=True, overflow="ignore")

    columns = (
        TextColumn("{task.description}", table_column=fixed()),
        BarColumn(bar_width=12),
        TextColumn("{task.fields[count]}", table_column=fixed()),
        TimeRemainingColumn(table_column=fixed()),
        TextColumn("{task.fields[main]}", table_column=fixed()),
        TextColumn(
            "{task.fields[rate]}  {task.fields[note]}",
            table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
        ),
    )
    with Progress(*columns, console=Console(stderr=True), expand=True) as bars:

        def add(title: str, *, shown: bool = True) -> Callable[..., None]:
            task = bars.add_task(
                title, total=None, visible=shown, count="", main="", rate="", note=""
            )

            def update(**fields: Any) -> None:
                speed = next(t.speed for t in bars.tasks if t.id == task)
                bars.update(task, **fields, rate=f"{speed:.3g}/s" if speed else "")

            return update

        yield add


class LogHandler(logging.StreamHandler[TextIO]):
    """Writes to the current sys.stderr, which rich replaces while it shows progress bars."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    def format(self, record: logging.LogRecord) -> str:
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        return prefix + record.getMessage()

    @property
    def stream(self) -> TextIO:  # type: ignore[override]  # logging assigns it once
        return sys.stderr


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
