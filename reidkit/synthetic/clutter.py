"""Objects in the scenes: bicycles, bins, benches, poles and the like.

Each is an RGBA image whose lower edge stands on the ground, at the scale of a person 110 pixels
tall.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

Rgb = tuple[int, int, int]


def _blank(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGBA", (width * 2, height * 2), (0, 0, 0, 0))
    return image, ImageDraw.Draw(image)


def _done(image: Image.Image) -> Image.Image:
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)


def _pick(rng: np.random.Generator, *colours: Rgb) -> Rgb:
    r, g, b = np.clip(
        np.asarray(colours[int(rng.integers(len(colours)))]) + rng.normal(0, 10, 3), 0, 255
    )
    return int(r), int(g), int(b)


def bicycle(rng: np.random.Generator) -> Image.Image:
    """Side view, foreshortened by a random factor."""
    image, draw = _blank(96, 60)
    frame = _pick(rng, (40, 40, 44), (120, 40, 40), (50, 70, 110), (170, 170, 168), (60, 90, 70))
    tyre = (34, 34, 36)
    for x in (6, 118):
        draw.ellipse([x, 50, x + 66, 116], outline=tyre, width=5)
        for angle in np.linspace(0, np.pi, 5)[:-1]:
            dx, dy = 31 * np.cos(angle), 31 * np.sin(angle)
            draw.line([x + 33 - dx, 83 - dy, x + 33 + dx, 83 + dy], fill=(120, 120, 122, 150))
    for line in ([39, 83, 66, 38, 132, 36, 92, 86, 39, 83], [66, 38, 92, 86], [151, 83, 134, 22]):
        draw.line(line, fill=frame, width=6)
    draw.line([122, 18, 142, 24], fill=tyre, width=6)
    draw.rectangle([52, 26, 80, 33], fill=tyre)
    if rng.random() < 0.5:
        draw.rectangle([136, 26, 168, 50], fill=(90, 86, 80))
    image = _done(image)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image.resize((int(image.width * rng.uniform(0.35, 1.0)), image.height))


def bin_(rng: np.random.Generator) -> Image.Image:
    image, draw = _blank(30, 50)
    colour = _pick(rng, (60, 84, 66), (86, 88, 90), (44, 62, 92), (120, 104, 74))
    draw.polygon([(4, 16), (56, 16), (50, 100), (10, 100)], fill=colour)
    draw.polygon(
        [(36, 16), (56, 16), (50, 100), (34, 100)], fill=tuple(int(c * 0.72) for c in colour)
    )
    draw.rounded_rectangle([0, 4, 60, 18], 6, fill=tuple(int(c * 0.6) for c in colour))
    return _done(image)


def pole(rng: np.random.Generator) -> Image.Image:
    """Taller than a person."""
    width = int(rng.integers(4, 10))
    image, draw = _blank(34, 230)
    colour = _pick(rng, (110, 112, 112), (72, 74, 76), (150, 148, 142), (88, 76, 62))
    x = 34 - width
    for offset in range(width * 2):
        round_ = 0.55 + 0.5 * np.sin(np.pi * (offset + 0.5) / (width * 2))
        draw.line([x + offset, 0, x + offset, 460], fill=tuple(int(c * round_) for c in colour))
    if rng.random() < 0.35:
        draw.rounded_rectangle(
            [4, 60, 64, 116], 8, fill=_pick(rng, (40, 70, 130), (170, 50, 50), (200, 190, 160))
        )
    return _done(image)


def bench(rng: np.random.Generator) -> Image.Image:
    image, draw = _blank(86, 44)
    wood = _pick(rng, (120, 88, 58), (98, 96, 92), (84, 66, 50))
    for y in (4, 14, 24, 42, 50):
        draw.rectangle(
            [2, y, 170, y + 7], fill=tuple(int(c * rng.uniform(0.85, 1.1)) for c in wood)
        )
    for x in (14, 150):
        draw.rectangle([x, 8, x + 6, 88], fill=(56, 56, 58))
    return _done(image)


def bush(rng: np.random.Generator) -> Image.Image:
    image, draw = _blank(84, 54)
    greens = ((54, 66, 46), (66, 80, 54), (80, 94, 64), (40, 50, 36), (98, 108, 80))
    for _ in range(700):
        x, y = rng.normal(84, 32), 108 - abs(rng.normal(0, 40))
        r = rng.uniform(1.5, 4.5)
        draw.ellipse([x - r, y - r, x + r, y + r], fill=greens[int(rng.integers(5))])
    return _done(image)


def car(rng: np.random.Generator) -> Image.Image:
    image, draw = _blank(230, 84)
    paint = _pick(rng, (190, 190, 188), (50, 52, 56), (120, 34, 36), (60, 78, 110), (150, 148, 142))
    draw.rounded_rectangle([4, 60, 456, 140], 26, fill=paint)
    draw.polygon([(80, 64), (140, 8), (310, 8), (380, 64)], fill=paint)
    draw.polygon([(98, 62), (148, 18), (220, 18), (220, 62)], fill=(54, 62, 70))
    draw.polygon([(230, 62), (230, 18), (304, 18), (358, 62)], fill=(60, 68, 76))
    draw.rectangle([4, 122, 456, 142], fill=tuple(int(c * 0.6) for c in paint))
    for x in (70, 330):
        draw.ellipse([x, 108, x + 60, 168], fill=(28, 28, 30))
        draw.ellipse([x + 16, 124, x + 44, 152], fill=(130, 130, 132))
    return _done(image)


def board(rng: np.random.Generator) -> Image.Image:
    """A notice board."""
    image, draw = _blank(44, 78)
    draw.rectangle(
        [6, 4, 82, 110],
        fill=_pick(rng, (190, 184, 170), (60, 80, 120), (150, 60, 54)),
        outline=(60, 60, 62),
        width=5,
    )
    for y in range(18, 100, 12):
        draw.line(
            [16, y, int(rng.integers(40, 74)), y],
            fill=_pick(rng, (70, 70, 74), (214, 208, 196)),
            width=5,
        )
    for x in (14, 70):
        draw.line([x, 108, x, 156], fill=(60, 60, 62), width=5)
    return _done(image)


SPRITES: dict[str, Callable[[np.random.Generator], Image.Image]] = {
    "bicycle": bicycle,
    "bin": bin_,
    "pole": pole,
    "bench": bench,
    "bush": bush,
    "car": car,
    "board": board,
}

OCCLUDERS = ("pole", "bicycle", "bin", "bench", "bicycle", "bush", "pole", "bin")
