"""Pictures of attention: heat maps over images, matrices with numbers, and sheets of both."""

# H W pixels, h w feature map

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from reidkit.files import printable
from reidkit.visualize.text import font, shortened

OPACITY = 0.6
"""Of a heat map over its image."""
CELL = 44
"""Pixels of one entry of a matrix."""

_MARGIN, _GAP, _LINE, _MAX_TITLE = 24, 12, 18, 480
_PAPER, _INK, _FAINT, _LINES = (255, 255, 255), (24, 24, 27), (100, 100, 108), (226, 226, 230)


@dataclass(frozen=True)
class Row:
    """One line of a sheet.

    Attributes:
        title: above it.
        cells: pictures; None leaves a column empty.
        captions: below the cells; empty without.
    """

    title: str
    cells: tuple[Image.Image | None, ...]
    captions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sheet:
    """A figure: rows of pictures under column headings.

    Attributes:
        headings: one per column.
        scale: what the lowest and the highest colour of the heat maps mean; None without maps.
        note: below the rows, one sentence a line.
    """

    title: str
    headings: tuple[str, ...]
    rows: tuple[Row, ...]
    scale: tuple[str, str] | None = None
    note: tuple[str, ...] = ()


def heat_map(
    picture: Image.Image,
    values: Tensor,
    *,
    low: float,
    high: float,
    aligned_corners: bool = False,
) -> Image.Image:
    """A map over its image: blue at `low` or below, red at `high` or above.

    Args:
        values: [h, w], the first row at the top.
        aligned_corners: the centres of the corner cells lie on the corners of the image, as part
            masks are reduced in training; otherwise each cell covers an equal share of the image.
    """
    size = (picture.height, picture.width)
    span = high - low
    level = values.detach().double().cpu()
    level = ((level - low) / span).clamp(0, 1) if span > 0 else torch.zeros_like(level)
    level = F.interpolate(level[None, None], size, mode="bilinear", align_corners=aligned_corners)[
        0, 0
    ]
    colours = _heat_colours()[(level * 255).round().long().numpy()]
    grey = picture.convert("L").convert("RGB")
    return Image.blend(grey, Image.fromarray(colours), OPACITY)


def own_range(picture: Image.Image, values: Tensor) -> Image.Image:
    """A map over its image, in colours that span its lowest to its highest value."""
    return heat_map(picture, values, low=float(values.min()), high=float(values.max()))


def range_text(values: Tensor) -> str:
    """The lowest and the highest value, as a caption."""
    return f"{float(values.min()):.3g} to {float(values.max()):.3g}"


def reduced(picture: Image.Image, scale: float) -> Image.Image:
    """The picture in a smaller size."""
    return picture.resize((round(scale * picture.width), round(scale * picture.height)))


def mark(picture: Image.Image, cell: tuple[int, int], grid: tuple[int, int]) -> Image.Image:
    """The picture with a red square around one cell of an h x w map over it.

    Args:
        cell: (row, column).
        grid: (h, w).
    """
    marked = picture.copy()
    down, across = picture.height / grid[0], picture.width / grid[1]
    y, x = (cell[0] + 0.5) * down, (cell[1] + 0.5) * across
    half = max(5.0, min(down, across) / 2)
    pen = ImageDraw.Draw(marked)
    pen.rectangle((x - half - 1, y - half - 1, x + half + 1, y + half + 1), outline=_PAPER)
    pen.rectangle((x - half, y - half, x + half, y + half), outline=(230, 20, 20), width=2)
    return marked


def numbered(
    picture: Image.Image, cells: Sequence[tuple[int, int]], grid: tuple[int, int]
) -> Image.Image:
    """The picture with the numbers 1, 2, ... at cells of an h x w map over it."""
    marked = picture.copy()
    pen = ImageDraw.Draw(marked)
    for number, (row, column) in enumerate(cells, 1):
        x = (column + 0.5) * picture.width / grid[1]
        y = (row + 0.5) * picture.height / grid[0]
        pen.ellipse((x - 8, y - 8, x + 8, y + 8), fill=(230, 20, 20), outline=_PAPER)
        pen.text((x, y), str(number), _PAPER, font(11), anchor="mm")
    return marked


def matrix(
    values: Tensor, *, rows: Sequence[str], columns: Sequence[str], high: float
) -> Image.Image:
    """A matrix of non-negative numbers, each printed in its cell, the darker the larger.

    Args:
        values: [rows, columns].
        rows, columns: labels on the left and above.
        high: the value of the darkest cell.
    """
    array = values.detach().float().cpu().numpy()
    left, top = _label_width(rows), _LINE
    sheet = Image.new("RGB", (left + CELL * len(columns), top + CELL * len(rows)), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for column, label in enumerate(columns):
        x = left + CELL * (column + 0.5)
        pen.text((x, top - 4), shortened(label, font(12), CELL), _FAINT, font(12), anchor="ms")
    for row, label in enumerate(rows):
        y = top + CELL * (row + 0.5)
        pen.text((left - 6, y), label, _FAINT, font(12), anchor="rm")
        for column in range(len(columns)):
            x = left + CELL * column
            level = min(1.0, float(array[row, column]) / high)
            fill = tuple(round(255 + level * (dark - 255)) for dark in (8, 60, 125))
            box = (x, y - CELL / 2, x + CELL - 1, y + CELL / 2 - 1)
            pen.rectangle(box, fill=fill, outline=_LINES)
            ink = _PAPER if level > 0.5 else _INK
            text = _short_number(float(array[row, column]))
            pen.text((x + CELL / 2, y), text, ink, font(12), anchor="mm")
    return sheet


def strip(values: Tensor, *, low: float, high: float, width: int, height: int) -> Image.Image:
    """Numbers as coloured squares: [N] in a column, [1, N] in a row, each of width x height."""
    array = np.atleast_2d(values.detach().float().cpu().numpy())
    if values.dim() == 1:
        array = array.T
    sheet = Image.new("RGB", (width * array.shape[1], height * array.shape[0]), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for (row, column), value in np.ndenumerate(array):
        level = (value - low) / (high - low) if high > low else 0.5
        fill = tuple(_heat_colours()[round(255 * min(1.0, max(0.0, level)))].tolist())
        x, y = column * width, row * height
        pen.rectangle((x, y, x + width - 2, y + height - 2), fill=fill)
        ink = _INK if sum(c * w for c, w in zip(fill, (3, 6, 1), strict=True)) > 1300 else _PAPER
        pen.text((x + width / 2, y + height / 2), f"{value:.3g}", ink, font(11), anchor="mm")
    return sheet


def grid(
    images: Sequence[Sequence[Image.Image]],
    *,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
) -> Image.Image:
    """Images in lines of equal length, with labels on the left of lines and above columns."""
    left, top = _label_width(rows), _LINE if columns else 0
    widths = [max(image.width for image in column) + 4 for column in zip(*images, strict=True)]
    heights = [max(image.height for image in line) + 4 for line in images]
    sheet = Image.new("RGB", (left + sum(widths), top + sum(heights)), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for column, label in enumerate(columns):
        x = left + sum(widths[:column]) + widths[column] / 2
        pen.text((x, top - 4), label, _FAINT, font(12), anchor="ms")
    y = top
    for k, (line, height) in enumerate(zip(images, heights, strict=True)):
        if rows:
            pen.text((left - 8, y + height / 2), rows[k], _FAINT, font(12), anchor="rm")
        x = left
        for image, width in zip(line, widths, strict=True):
            sheet.paste(image, (x + (width - image.width) // 2, y))
            x += width
        y += height
    return sheet


def _label_width(labels: Sequence[str]) -> int:
    return max((round(font(12).getlength(label)) + 8 for label in labels), default=0)


def render(sheet: Sheet) -> Image.Image:
    """The sheet as one image."""
    count = len(sheet.headings)
    widths = [
        max(
            round(font(13).getlength(sheet.headings[k])),
            *(row.cells[k].width for row in sheet.rows if row.cells[k] is not None),  # type: ignore[union-attr]  # just checked
            *(round(font(12).getlength(row.captions[k])) for row in sheet.rows if row.captions),
        )
        for k in range(count)
    ]
    title_width = round(font(18).getlength(sheet.title))
    note_width = max((round(font(12).getlength(line)) for line in sheet.note), default=0)
    row_titles = max(round(font(12).getlength(printable(row.title))) for row in sheet.rows)
    width = 2 * _MARGIN + max(
        sum(widths) + _GAP * (count - 1), title_width, note_width, min(row_titles, _MAX_TITLE)
    )
    height = 2 * _MARGIN + 56 + sum(_row_height(row) for row in sheet.rows)
    height += _LINE * (len(sheet.note) + 2 * (sheet.scale is not None))
    picture = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(picture)
    pen.text((_MARGIN, _MARGIN), sheet.title, _INK, font(18))
    lefts = [_MARGIN + sum(widths[:k]) + _GAP * k for k in range(count)]
    y = _MARGIN + 34
    for k, heading in enumerate(sheet.headings):
        pen.text((lefts[k] + widths[k] / 2, y), heading, _INK, font(13), anchor="ma")
    y += 22
    for row in sheet.rows:
        _paste_row(picture, row, lefts, widths, y)
        y += _row_height(row)
    if sheet.scale is not None:
        _render_scale(pen, sheet.scale, y)
        y += 2 * _LINE
    for line in sheet.note:
        pen.text((_MARGIN, y), line, _FAINT, font(12))
        y += _LINE
    return picture


def _row_height(row: Row) -> int:
    tallest = max(cell.height for cell in row.cells if cell is not None)
    return _LINE * (bool(row.title) + bool(row.captions)) + tallest + _GAP


def _paste_row(
    picture: Image.Image, row: Row, lefts: Sequence[int], widths: Sequence[int], top: int
) -> None:
    pen = ImageDraw.Draw(picture)
    if row.title:
        text = shortened(printable(row.title), font(12), picture.width - 2 * _MARGIN)
        pen.text((_MARGIN, top), text, _FAINT, font(12))
        top += _LINE
    tallest = max(cell.height for cell in row.cells if cell is not None)
    for k, (cell, left, width) in enumerate(zip(row.cells, lefts, widths, strict=True)):
        if cell is not None:
            picture.paste(cell, (left + (width - cell.width) // 2, top))
        if row.captions:
            place = (left + width / 2, top + tallest + 2)
            pen.text(place, row.captions[k], _FAINT, font(12), anchor="ma")


def _render_scale(pen: ImageDraw.ImageDraw, scale: tuple[str, str], top: int) -> None:
    x = _MARGIN
    pen.text((x, top), scale[0], _FAINT, font(12))
    x += round(font(12).getlength(scale[0])) + 8
    for step, colour in enumerate(_heat_colours()[::2].tolist()):
        pen.line([(x + step, top), (x + step, top + 13)], tuple(colour))
    pen.text((x + 136, top), scale[1], _FAINT, font(12))


def _short_number(value: float) -> str:
    """Two significant digits, and whole numbers from 10 on."""
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}" if value >= 0.05 else "0"


@cache
def _heat_colours() -> NDArray[np.uint8]:
    """matplotlib's turbo, uint8 [256, 3]: a rainbow as in the papers, of even lightness steps."""
    from matplotlib import colormaps

    colours: NDArray[np.float64] = colormaps["turbo"](np.arange(256))[:, :3]
    return np.round(255 * colours).astype(np.uint8)
