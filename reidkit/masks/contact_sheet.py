"""Contact sheet: each image beside a copy with its parts overlaid."""

# H W pixels

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from reidkit.errors import DataError
from reidkit.files import atomic
from reidkit.image import read_image
from reidkit.masks.report import MaskReport
from reidkit.masks.store import MaskStore

CELL = (224, 112)
"""(height, width) in pixels of one panel; each image takes two side by side."""
COLUMNS = 8
MARGIN = 10
CAPTION = 30
HEADING = 64
COLOURS = (
    (230, 57, 70),
    (69, 123, 255),
    (255, 190, 11),
    (46, 196, 102),
    (180, 80, 220),
    (0, 200, 210),
    (255, 130, 50),
    (150, 150, 150),
)
BACKDROP, INK, ALARM = (250, 250, 248), (30, 30, 34), (200, 30, 40)


def choose(report: MaskReport, paths: Sequence[str], *, count: int = 32) -> list[tuple[str, str]]:
    """(path, reason) of the images to show: an even sample of all (reason empty), then the worst
    suspects, at most half of `count`."""
    suspects = [(s.path, "; ".join(s.reasons)) for s in report.suspects[: count // 2]]
    taken = {path for path, _ in suspects}
    rest = [path for path in paths if path not in taken]
    places = np.linspace(0, len(rest) - 1, min(count - len(suspects), len(rest))).round()
    return [(rest[int(place)], "") for place in places] + suspects


def save_contact_sheet(path: Path, store: MaskStore, report: MaskReport, *, root: Path) -> None:
    """Writes the contact sheet to `path` as PNG.

    Args:
        root: the folder that the store's paths are relative to.

    Raises:
        DataError: if an image cannot be read, or `path` does not end in .png.
    """
    if path.suffix.lower() != ".png":
        raise DataError(f"{path}: contact sheets are PNG files; choose a name that ends in .png")
    chosen = choose(report, store.paths)
    height, width = CELL
    columns = min(COLUMNS, len(chosen))
    rows = -(-len(chosen) // columns)
    step = (height + CAPTION + MARGIN, 2 * width + MARGIN)
    sheet = Image.new(
        "RGB",
        (max(columns * step[1] + MARGIN, 900), rows * step[0] + HEADING + MARGIN),
        BACKDROP,
    )
    pen = ImageDraw.Draw(sheet)
    _heading(pen, store, report)
    for number, (name, reason) in enumerate(chosen):
        left = MARGIN + number % columns * step[1]
        top = HEADING + number // columns * step[0]
        image = read_image(root / name).resize((width, height))
        sheet.paste(image, (left, top))
        sheet.paste(overlay(image, store.read([name])[0]), (left + width, top))
        if reason:
            box = (left - 2, top - 2, left + 2 * width + 1, top + height + 1)
            pen.rectangle(box, outline=ALARM, width=2)
        lines = (name.rpartition("/")[2], reason)
        for line, (text, colour) in enumerate(zip(lines, (INK, ALARM), strict=True)):
            place = (left, top + height + 2 + 13 * line)
            pen.text(place, _fit(text, 2 * width), fill=colour, font=_font(11))
    with atomic(path) as partial:
        sheet.save(partial, format="PNG")


def overlay(image: Image.Image, part_map: np.ndarray) -> Image.Image:
    """The image in grey with its parts (uint8 [h, w]) in colour over it."""
    index = Image.fromarray(part_map).resize(image.size, Image.Resampling.NEAREST)
    parts = np.asarray(index)
    grey = np.asarray(image.convert("L"), np.float32)[..., None].repeat(3, axis=2)
    palette = np.array([(0, 0, 0), *(COLOURS[k % len(COLOURS)] for k in range(255))], np.float32)
    mixed = np.where(parts[..., None] > 0, 0.45 * grey + 0.55 * palette[parts], grey)
    return Image.fromarray(mixed.astype(np.uint8))


def _heading(pen: ImageDraw.ImageDraw, store: MaskStore, report: MaskReport) -> None:
    title = (
        f"{store.header.dataset}, {report.split}: {report.images:,} masks from {report.source};"
        f" {report.suspicious:,} suspicious, {report.empty:,} nearly empty"
    )
    pen.text((MARGIN, 8), title, fill=INK, font=_font(16))
    left = MARGIN
    for k, part in enumerate(store.parts):
        pen.rectangle((left, 36, left + 14, 50), fill=COLOURS[k % len(COLOURS)])
        text = f"{part} {100 * report.coverage[k]:.1f} %"
        pen.text((left + 20, 35), text, fill=INK, font=_font(13))
        left += 44 + int(pen.textlength(text, font=_font(13)))


@cache  # Pillow decodes its font at every call
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _fit(text: str, width: int) -> str:
    font = _font(11)
    while text and font.getlength(text) > width:
        text = text[:-2] + "…" if len(text) > 2 else ""
    return text
