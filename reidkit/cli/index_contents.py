"""reidkit index: info and list."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from reidkit.cli.conditions import (
    AfterOption,
    BeforeOption,
    CamerasOption,
    PeopleOption,
    read_filter,
)
from reidkit.cli.galleries import IndexArgument, open_gallery
from reidkit.cli.options import JsonOption
from reidkit.cli.output import print_json
from reidkit.files import printable


def info(index: IndexArgument, json: JsonOption = False) -> None:
    """Show what an index is: model, size, times.

    \b
    Examples:
      reidkit index info people.index
    """
    facts = open_gallery(index).info()
    if json:
        print_json(facts)
        return
    for name, value in facts.items():
        print(f"{name:13} {_text(name, value)}")


def list_(
    index: IndexArgument,
    camera: CamerasOption = None,
    person: PeopleOption = None,
    after: AfterOption = None,
    before: BeforeOption = None,
    limit: Annotated[int, typer.Option(min=0, help="Entries to show at most; 0: all.")] = 100,
    json: JsonOption = False,
) -> None:
    """List the images in an index.

    Prints camera, person, time and path of each, by path.

    \b
    Examples:
      reidkit index list people.index --camera 3 --after 2026-05-17
      reidkit index list people.index --limit 0 --json
    """
    from dataclasses import asdict

    condition = read_filter(camera, person, after, before)
    gallery = open_gallery(index)
    total = gallery.count(condition)
    records = gallery.find(condition, limit=limit or None)
    if json:
        print_json(
            {"index": index, "matching": total, "records": [asdict(record) for record in records]}
        )
        return
    rows = [
        (
            "-" if record.camera is None else str(record.camera),
            printable(record.person) or "-",
            _text("time", record.time),
            printable(record.path),
        )
        for record in records
    ]
    header = ("camera", "person", "time", "path")
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in [header, *rows] if rows else []:
        *cells, path = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join([*cells, path.rstrip()]))
    hidden = "" if len(rows) == total else ". Show all of them with --limit 0"
    print(f"{len(rows):,} of {total:,} entries{hidden}")


def _text(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if name in ("oldest", "newest", "time"):
        return _utc(value)
    if name == "approximate":
        return f"{value['kind']}, recall at 10 {value['recall']:.3f}"
    return f"{value:,}" if type(value) is int else str(value)


def _utc(seconds: float) -> str:
    """ISO 8601, or the number where a calendar has no such year."""
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
    except (ValueError, OverflowError, OSError):
        return f"{seconds:g}"
