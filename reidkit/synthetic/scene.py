"""Places that cameras look at: one wide picture each, of which every image shows a part.

A scene is [SCENE_HEIGHT, SCENE_WIDTH, 3] in [0, 1]; what stands (walls, hedges, shops) fills it
down to HORIZON, the ground lies below. Nearby people are about 110 pixels tall in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from reidkit.synthetic.clutter import SPRITES
from reidkit.synthetic.raster import Float

SCENE_HEIGHT, SCENE_WIDTH, HORIZON = 400, 760, 150

Rgb = tuple[int, int, int]


@dataclass(frozen=True)
class Brushes:
    """What a painter of places works with."""

    rng: np.random.Generator
    image: Image.Image
    draw: ImageDraw.ImageDraw


def draw_scene(kind: str, rng: np.random.Generator) -> Float:
    """Paints the place called `kind` (a key of PLACES)."""
    image = Image.new("RGB", (SCENE_WIDTH, SCENE_HEIGHT), (128, 128, 128))
    PLACES[kind](Brushes(rng, image, ImageDraw.Draw(image)))
    picture = np.asarray(image.filter(ImageFilter.GaussianBlur(0.8)), np.float32) / 255
    grain = texture(rng, (SCENE_HEIGHT, SCENE_WIDTH), (3, 9, 40), (0.5, 0.35, 0.3))
    shade = texture(rng, (SCENE_HEIGHT, SCENE_WIDTH), (180,), (1.0,))
    picture = picture * (1 + 0.07 * grain + 0.1 * shade)[..., None]
    return np.clip(picture, 0, 1).astype(np.float32)


def texture(
    rng: np.random.Generator,
    size: tuple[int, int],
    grains: tuple[int, ...],
    weights: tuple[float, ...],
) -> Float:
    """Smooth noise [H, W] around 0: octaves of the given grain sizes in pixels, each about unit
    spread times its weight."""
    total = np.zeros(size, np.float32)
    for grain, weight in zip(grains, weights, strict=True):
        coarse = rng.standard_normal((size[0] // grain + 3, size[1] // grain + 3), np.float32)
        image = Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.BICUBIC)
        total += np.asarray(image) * weight
    return total


def _tint(rng: np.random.Generator, colour: Rgb, spread: float = 12) -> Rgb:
    r, g, b = np.clip(
        np.asarray(colour) + rng.normal(0, spread) + rng.normal(0, spread / 3, 3), 5, 250
    )
    return int(r), int(g), int(b)


def _ground(at: Brushes, colour: Rgb, *, top: int = HORIZON) -> None:
    base = _tint(at.rng, colour)
    for y in range(top, SCENE_HEIGHT):  # a little brighter towards the camera
        gain = 0.9 + 0.14 * (y - top) / (SCENE_HEIGHT - top)
        at.draw.line([(0, y), (SCENE_WIDTH, y)], fill=tuple(int(c * gain) for c in base))


def _tiles(at: Brushes, *, width: float, gap: Rgb, top: int = HORIZON) -> None:
    """Paving in perspective: joints run towards a vanishing point, cross joints close up."""
    y, step = float(top) + 4, 4.0
    while y < SCENE_HEIGHT:
        at.draw.line([(0, y), (SCENE_WIDTH, y)], fill=gap)
        step *= 1.16
        y += min(step, width)
    centre, far = SCENE_WIDTH * at.rng.uniform(0.2, 0.8), top - 160
    for offset in np.arange(-70, 70) * width:
        at.draw.line(
            [
                (centre + offset * (top - far) / 260, top),
                (centre + offset * (SCENE_HEIGHT - far) / 260, SCENE_HEIGHT),
            ],
            fill=gap,
        )


def _blotches(
    at: Brushes, box: tuple[int, int, int, int], colours: list[Rgb], count: int, size: float
) -> None:
    """Leaves, stains, grass: many small soft-coloured spots."""
    x0, y0, x1, y1 = box
    xs, ys = at.rng.uniform(x0, x1, count), at.rng.uniform(y0, y1, count)
    rs = at.rng.gamma(3, size / 3, count)
    picks = at.rng.integers(len(colours), size=count)
    for x, y, r, pick in zip(xs, ys, rs, picks, strict=True):
        at.draw.ellipse([x - r, y - r * 0.8, x + r, y + r * 0.8], fill=colours[pick])


def _bricks(at: Brushes, colour: Rgb, *, bottom: int = HORIZON) -> None:
    at.draw.rectangle([0, 0, SCENE_WIDTH, bottom], fill=tuple(int(c * 0.85) + 20 for c in colour))
    for row, y in enumerate(range(0, bottom, 6)):
        for x in range(-14 + (row % 2) * 7, SCENE_WIDTH, 14):
            at.draw.rectangle([x, y, x + 12, y + 4], fill=_tint(at.rng, colour, 9))


def _windows(at: Brushes, *, y0: int, y1: int, width: int, every: int, frame: Rgb) -> None:
    for x in range(int(at.rng.integers(10, every)), SCENE_WIDTH, every):
        glass = _tint(at.rng, (62, 72, 82), 16)
        at.draw.rectangle([x, y0, x + width, y1], fill=glass, outline=frame, width=3)
        at.draw.polygon(
            [
                (x + 4, y1 - 3),
                (x + width * 0.4, y0 + 3),
                (x + width * 0.6, y0 + 3),
                (x + 14, y1 - 3),
            ],
            fill=tuple(min(c + 28, 255) for c in glass),
        )
        at.draw.line([(x + width / 2, y0), (x + width / 2, y1)], fill=frame, width=2)


def _stand(at: Brushes, names: list[str], count: int, *, low: int, high: int) -> None:
    """Puts clutter on the ground between two heights of the picture, far things first."""
    spots = sorted(
        (
            int(at.rng.integers(low, high)),
            int(at.rng.integers(0, SCENE_WIDTH)),
            names[int(at.rng.integers(len(names)))],
        )
        for _ in range(count)
    )
    for foot, x, name in spots:
        sprite = SPRITES[name](at.rng)
        scale = 0.62 + 0.5 * (foot - HORIZON) / 250
        sprite = sprite.resize(
            (max(int(sprite.width * scale), 2), max(int(sprite.height * scale), 2))
        )
        at.image.paste(sprite, (x - sprite.width // 2, foot - sprite.height), sprite)


def _shop_front(at: Brushes) -> None:
    _ground(at, (150, 146, 140))
    _tiles(at, width=26, gap=(126, 122, 118))
    at.draw.rectangle([0, 0, SCENE_WIDTH, HORIZON], fill=_tint(at.rng, (120, 112, 104)))
    x = 0
    while x < SCENE_WIDTH:
        width = int(at.rng.integers(90, 170))
        sign = _tint(
            at.rng,
            [(150, 40, 40), (40, 70, 120), (200, 190, 170), (60, 100, 70)][int(at.rng.integers(4))],
        )
        at.draw.rectangle([x + 3, 6, x + width - 6, 34], fill=sign)
        for letter in range(x + 14, x + width - 22, 11):
            if at.rng.random() < 0.8:
                at.draw.rectangle([letter, 14, letter + 7, 26], fill=(225, 220, 205))
        at.draw.rectangle(
            [x + 5, 40, x + width - 8, HORIZON - 5], fill=_tint(at.rng, (70, 66, 62), 18)
        )
        for _ in range(26):  # goods behind the glass
            gx, gy = (
                int(at.rng.integers(x + 8, x + width - 18)),
                int(at.rng.integers(46, HORIZON - 16)),
            )
            at.draw.rectangle(
                [gx, gy, gx + int(at.rng.integers(4, 16)), gy + int(at.rng.integers(4, 14))],
                fill=_tint(at.rng, (130, 110, 90), 45),
            )
        at.draw.line([(x, 0), (x, HORIZON)], fill=(60, 56, 54), width=6)
        x += width
    _stand(at, ["bicycle", "bin", "bicycle", "board"], 11, low=HORIZON + 4, high=HORIZON + 70)


def _brick_wall(at: Brushes) -> None:
    _ground(at, (134, 132, 130))
    _tiles(at, width=34, gap=(116, 114, 112))
    _bricks(at, (142, 92, 76))
    _windows(at, y0=22, y1=92, width=56, every=170, frame=(190, 186, 178))
    at.draw.rectangle([0, HORIZON - 12, SCENE_WIDTH, HORIZON], fill=(98, 94, 92))
    _stand(at, ["bicycle", "bush", "pole", "bin"], 10, low=HORIZON + 2, high=HORIZON + 90)


def _lawn(at: Brushes) -> None:
    greens: list[Rgb] = [(72, 96, 52), (88, 112, 62), (58, 80, 44), (104, 122, 74), (48, 66, 40)]
    at.draw.rectangle([0, 0, SCENE_WIDTH, HORIZON], fill=(64, 84, 50))
    _blotches(at, (0, 0, SCENE_WIDTH, HORIZON), [*greens, (36, 50, 32), (120, 136, 90)], 2600, 5)
    for _ in range(9):
        x, width = at.rng.uniform(0, SCENE_WIDTH), at.rng.uniform(5, 12)
        at.draw.rectangle([x, 0, x + width, HORIZON + 6], fill=_tint(at.rng, (74, 60, 48)))
    _ground(at, (86, 106, 62))
    _blotches(at, (0, HORIZON, SCENE_WIDTH, SCENE_HEIGHT), greens, 5200, 3)
    path = _tint(at.rng, (158, 150, 138))
    at.draw.polygon([(0, 235), (SCENE_WIDTH, 205), (SCENE_WIDTH, 372), (0, 392)], fill=path)
    _stand(at, ["bush", "bench", "pole"], 8, low=HORIZON, high=HORIZON + 50)


def _road(at: Brushes) -> None:
    at.draw.rectangle([0, 0, SCENE_WIDTH, HORIZON], fill=_tint(at.rng, (150, 148, 144)))
    _windows(at, y0=8, y1=70, width=40, every=74, frame=(170, 168, 164))
    _blotches(at, (0, 86, SCENE_WIDTH, HORIZON), [(60, 78, 48), (74, 92, 56), (50, 64, 42)], 900, 6)
    _ground(at, (104, 104, 106))
    at.draw.rectangle([0, HORIZON - 4, SCENE_WIDTH, HORIZON + 8], fill=(150, 148, 144))
    for x in range(-20, SCENE_WIDTH, 120):
        at.draw.polygon(
            [(x, 262), (x + 64, 262), (x + 70, 271), (x + 2, 271)], fill=(196, 194, 186)
        )
    at.draw.rectangle([0, 372, SCENE_WIDTH, SCENE_HEIGHT], fill=(146, 142, 136))
    _stand(at, ["car", "car", "bicycle", "pole"], 9, low=HORIZON + 8, high=HORIZON + 60)


def _plaza(at: Brushes) -> None:
    _ground(at, (172, 166, 156), top=60)
    _tiles(at, width=44, gap=(150, 143, 134), top=60)
    at.draw.rectangle([0, 0, SCENE_WIDTH, 70], fill=_tint(at.rng, (108, 112, 112)))
    for y in range(50, 96, 9):  # steps
        at.draw.line([(0, y), (SCENE_WIDTH, y)], fill=(122, 118, 112), width=3)
    for x in range(int(at.rng.integers(20, 90)), SCENE_WIDTH, 200):
        at.draw.rectangle([x, 0, x + 22, 110], fill=_tint(at.rng, (160, 156, 148)))
    _blotches(at, (0, 60, SCENE_WIDTH, SCENE_HEIGHT), [(150, 144, 136), (182, 178, 170)], 160, 9)
    _stand(at, ["bench", "bin", "bush", "pole"], 7, low=HORIZON - 20, high=HORIZON + 120)


def _concrete(at: Brushes) -> None:
    _ground(at, (118, 114, 110))
    at.draw.rectangle([0, 0, SCENE_WIDTH, HORIZON], fill=_tint(at.rng, (168, 166, 160)))
    for x in range(0, SCENE_WIDTH, 92):
        at.draw.line([(x, 0), (x, HORIZON)], fill=(136, 134, 130), width=2)
    for _ in range(5):
        x = int(at.rng.integers(0, SCENE_WIDTH))
        at.draw.rectangle(
            [x, 36, x + 46, HORIZON], fill=_tint(at.rng, (84, 88, 92)), outline=(60, 60, 60)
        )
    for _ in range(9):
        x, y = int(at.rng.integers(0, SCENE_WIDTH)), int(at.rng.integers(20, 90))
        at.draw.rectangle([x, y, x + 24, y + 34], fill=_tint(at.rng, (170, 150, 120), 40))
    _blotches(
        at, (0, HORIZON, SCENE_WIDTH, SCENE_HEIGHT), [(104, 101, 98), (130, 127, 122)], 240, 8
    )
    at.draw.line([(0, 300), (SCENE_WIDTH, 250)], fill=(176, 164, 96), width=5)
    _stand(at, ["bicycle", "bicycle", "bin", "pole", "board"], 10, low=HORIZON, high=HORIZON + 60)


PLACES: dict[str, Callable[[Brushes], None]] = {
    "shop front": _shop_front,
    "brick wall": _brick_wall,
    "lawn": _lawn,
    "road": _road,
    "plaza": _plaza,
    "concrete": _concrete,
}
