"""Ranked lists as pictures: a query and its nearest gallery images, as PNG and as one HTML page.

A right hit has a green frame and a check mark, a wrong one a red frame and a cross, so that
neither depends on colour vision; junk is greyed.
"""

# H W pixels

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image, ImageDraw, ImageOps

from reidkit.errors import DataError
from reidkit.files import atomic, printable
from reidkit.image import read_image
from reidkit.visualize.images import thumbnail
from reidkit.visualize.page import render_page
from reidkit.visualize.text import font, shortened

Verdict = Literal["right", "wrong", "junk", "unknown"]
"""Of a hit: a true match, another person, left out of the ranking, or not labelled."""

COLOURS: dict[Verdict, tuple[int, int, int]] = {
    "right": (22, 128, 60),
    "wrong": (196, 32, 32),
    "junk": (140, 140, 140),
    "unknown": (60, 60, 66),
}
SIGNS: dict[Verdict, str] = {"right": "\u2713", "wrong": "\u2717", "junk": "\u2013", "unknown": ""}
CELL = (256, 128)
"""(height, width) in pixels of one image; others are fitted into it."""
THUMBNAIL = (192, 96)
"""The same in the HTML page."""
MAX_ROWS = 200
"""Rows of one PNG."""

_FRAME, _GAP, _TEXT, _MARGIN, _TITLE = 5, 14, 44, 24, 30
_PAPER, _INK, _FAINT = (255, 255, 255), (24, 24, 27), (110, 110, 118)


@dataclass(frozen=True)
class Tile:
    """One image of a ranked list.

    Attributes:
        image: the file; None where the list has an empty place.
        lines: short texts below it: the first in a line of its own, the others in one line of a
            picture, and in a line each of a page, where they would wrap.
        verdict: of a hit; "unknown" for queries.
        camera: its number, None where unknown.
    """

    image: Path
    lines: tuple[str, ...]
    verdict: Verdict = "unknown"
    camera: int | None = None


@dataclass(frozen=True)
class RankedRow:
    """A query with its hits, nearest first.

    Attributes:
        title: above the row, such as the query's AP.
        ap: average precision, None where it is unknown.
    """

    query: Tile
    hits: tuple[Tile, ...]
    title: str = ""
    ap: float | None = None


def save_png(path: Path, rows: Sequence[RankedRow], *, title: str = "") -> None:
    """Writes ranked lists as one PNG, a row per query.

    Raises:
        DataError: `path` does not end in .png, there are more than `MAX_ROWS` rows, or an image
            cannot be read.
    """
    if path.suffix.lower() != ".png":
        raise DataError(f"{path}: ranked lists are PNG files; choose a name that ends in .png")
    if len(rows) > MAX_ROWS:
        raise DataError(
            f"{len(rows)} ranked lists do not fit one PNG, at most {MAX_ROWS} do. Use --html"
        )
    columns = 1 + max((len(row.hits) for row in rows), default=0)
    height = _row_height()
    width = 2 * _MARGIN + columns * (CELL[1] + _GAP) + 2 * _GAP
    sheet = Image.new("RGB", (width, 2 * _MARGIN + _TITLE + len(rows) * height), _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((_MARGIN, _MARGIN // 2), title, _INK, font(18))
    for k, row in enumerate(rows):
        _draw_row(sheet, row, top=_MARGIN + _TITLE + k * height)
    with atomic(path) as partial:
        sheet.save(partial, "PNG")


def save_html(path: Path, rows: Sequence[RankedRow], *, title: str = "Ranked lists") -> None:
    """Writes ranked lists as one HTML page without external resources, to be filtered by camera
    pair and AP.

    Raises:
        DataError: an image cannot be read.
    """
    pairs = sorted({(q, c) for row in rows for q, c in _camera_pairs(row)})
    page = render_page(
        "ranked_lists.html",
        title=title,
        rows=rows,
        pairs=pairs,
        pairs_of=lambda row: " ".join(f"{q}-{c}" for q, c in _camera_pairs(row)),
        thumbnail=lambda file: thumbnail(file, THUMBNAIL),
        signs=SIGNS,
        has_ap=any(row.ap is not None for row in rows),
    )
    with atomic(path) as partial:
        partial.write_text(page, encoding="utf-8")


def _camera_pairs(row: RankedRow) -> list[tuple[int, int]]:
    """(query's camera, hit's camera) of a row, where both are known."""
    q = row.query.camera
    cameras = {hit.camera for hit in row.hits if hit.camera is not None}
    return [] if q is None else [(q, camera) for camera in sorted(cameras)]


def _row_height() -> int:
    return _TITLE + CELL[0] + 2 * _FRAME + _TEXT + _GAP


def _draw_row(sheet: Image.Image, row: RankedRow, *, top: int) -> None:
    pen = ImageDraw.Draw(sheet)
    pen.text((_MARGIN, top), printable(row.title), _INK, font(14))
    y = top + _TITLE
    _draw_tile(sheet, row.query, left=_MARGIN, top=y)
    x = _MARGIN + CELL[1] + 2 * _GAP
    pen.line([(x, y), (x, y + CELL[0] + 2 * _FRAME)], _FAINT, 1)
    for k, hit in enumerate(row.hits):
        _draw_tile(sheet, hit, left=x + _GAP + k * (CELL[1] + _GAP), top=y)


def _draw_tile(sheet: Image.Image, tile: Tile, *, left: int, top: int) -> None:
    pen = ImageDraw.Draw(sheet)
    height, width = CELL
    image = _fitted(tile.image, CELL)
    if tile.verdict == "junk":
        image = Image.blend(
            ImageOps.grayscale(image).convert("RGB"), Image.new("RGB", image.size, _PAPER), 0.5
        )
    colour = COLOURS[tile.verdict]
    if tile.verdict != "unknown":
        box = (left, top, left + width + 2 * _FRAME - 1, top + height + 2 * _FRAME - 1)
        pen.rectangle(box, outline=colour, width=_FRAME)
    corner = (left + _FRAME, top + _FRAME)
    sheet.paste(
        image, (corner[0] + (width - image.width) // 2, corner[1] + (height - image.height) // 2)
    )
    if SIGNS[tile.verdict]:
        pen.ellipse((corner[0] + 4, corner[1] + 4, corner[0] + 28, corner[1] + 28), fill=colour)
        centre = (corner[0] + 16, corner[1] + 16)
        pen.text(centre, SIGNS[tile.verdict], _PAPER, font(18), anchor="mm")
    for k, line in enumerate([*tile.lines[:1], ", ".join(tile.lines[1:])]):
        text = shortened(printable(line), font(12), width + 2 * _FRAME)
        y = top + height + 2 * _FRAME + 4 + 17 * k
        pen.text((left, y), text, _INK if k == 0 else _FAINT, font(12))


def _fitted(file: Path, size: tuple[int, int]) -> Image.Image:
    """The image scaled to fit into `size` (height, width)."""
    return ImageOps.contain(read_image(file), (size[1], size[0]), Image.Resampling.LANCZOS)
