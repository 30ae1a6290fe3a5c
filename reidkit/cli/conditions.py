"""Options that say which entries of a gallery are meant: camera, person and time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from reidkit.choices import MAX_CAMERA

if TYPE_CHECKING:
    from reidkit.index.records import Filter

CamerasOption = Annotated[
    list[int] | None,
    typer.Option("--camera", min=0, max=MAX_CAMERA, help="Only this camera; repeatable."),
]
PeopleOption = Annotated[
    list[str] | None, typer.Option("--person", help="Only this person; repeatable.")
]
AfterOption = Annotated[
    str | None, typer.Option(help="Only from this time on, such as 2026-05-17T09:30.")
]
BeforeOption = Annotated[str | None, typer.Option(help="Only before this time.")]


def read_filter(
    cameras: list[int] | None, people: list[str] | None, after: str | None, before: str | None
) -> Filter:
    """The entries that the options mean.

    Raises:
        DataError: a time is malformed.
    """
    from reidkit.index.records import Filter, parse_time

    return Filter(
        frozenset(cameras) if cameras else None,
        frozenset(people) if people else None,
        None if after is None else parse_time(after, where="--after"),
        None if before is None else parse_time(before, where="--before"),
    )
