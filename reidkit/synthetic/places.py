"""The six kinds of place a camera may look at."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from reidkit.synthetic.scene import (
    HORIZON,
    SCENE_HEIGHT,
    SCENE_WIDTH,
    Easel,
    Rgb,
    finish,
    shade,
)


def draw_place(kind: str, rng: np.random.Generator) -> Image.Image:
    """Paints the place called `kind` (a key of PLACES)."""
    image = Image.new("RGB", (SCENE_WIDTH, SCENE_HEIGHT), (128, 128, 128))
    PLACES[kind](Easel(rng, image, ImageDraw.Draw(image)))
    return finish(image, rng)


def _shop_front(at: Easel) -> None:
    base = at.ground((152, 148, 142))
    at.tiles(base, width=26)
    at.litter(base, 60)
    at.wall((120, 112, 104))
    signs: list[Rgb] = [(150, 48, 44), (48, 74, 118), (196, 186, 166), (66, 98, 74), (90, 84, 80)]
    x = 0
    while x < SCENE_WIDTH:
        width = at.number(80, 160)
        at.draw.rectangle([x + 3, 6, x + width - 6, 34], fill=at.tint(signs[at.number(0, 5)]))
        for letter in range(x + 14, x + width - 22, 11):
            if at.rng.random() < 0.8:
                at.draw.rectangle([letter, 14, letter + 7, 26], fill=(216, 210, 196))
        glass = at.tint((72, 70, 68), 18)
        at.draw.rectangle([x + 5, 40, x + width - 8, HORIZON - 6], fill=glass)
        for _ in range(30):  # goods behind the glass
            gx, gy = at.number(x + 8, x + width - 18), at.number(46, HORIZON - 16)
            goods = at.tint((120, 104, 88), 42)
            at.draw.rectangle([gx, gy, gx + at.number(4, 16), gy + at.number(4, 14)], fill=goods)
        door = x + at.number(10, max(width - 50, 11))
        at.draw.rectangle([door, 44, door + 34, HORIZON], fill=shade(glass, 0.7))
        at.draw.line([(door + 17, 44), (door + 17, HORIZON)], fill=(150, 148, 144), width=2)
        at.draw.line([(x, 0), (x, HORIZON)], fill=(60, 56, 54), width=6)
        x += width
    at.stand(["bicycle", "bin", "bicycle", "board", "bush"], 16, low=HORIZON + 2, high=HORIZON + 50)


def _brick_wall(at: Easel) -> None:
    base = at.ground((138, 136, 132))
    at.tiles(base, width=34)
    at.litter(base, 90)
    brick = at.tint((136, 94, 80), 14)
    at.draw.rectangle([0, 0, SCENE_WIDTH, HORIZON], fill=shade(brick, 1.15))
    for row, y in enumerate(range(0, HORIZON, 6)):
        for x in range(-14 + (row % 2) * 7, SCENE_WIDTH, 14):
            at.draw.rectangle([x, y, x + 12, y + 4], fill=at.tint(brick, 8))
    at.windows(y0=22, y1=92, width=56, every=170, frame=(184, 180, 172))
    at.draw.rectangle([0, HORIZON - 12, SCENE_WIDTH, HORIZON], fill=(98, 94, 92))
    at.stand(["bicycle", "bush", "pole", "bin", "bush"], 15, low=HORIZON + 2, high=HORIZON + 70)


def _lawn(at: Easel) -> None:
    greens: list[Rgb] = [(74, 92, 56), (86, 104, 66), (60, 78, 48), (100, 114, 78), (50, 64, 42)]
    at.draw.rectangle([0, 0, SCENE_WIDTH, HORIZON], fill=(58, 74, 48))
    at.spots((0, 0, SCENE_WIDTH, HORIZON), [*greens, (36, 48, 33), (112, 124, 88)], 4200, 3.2)
    for _ in range(9):
        x, width = at.rng.uniform(0, SCENE_WIDTH), at.rng.uniform(5, 12)
        at.draw.rectangle([x, 0, x + width, HORIZON + 6], fill=at.tint((78, 66, 54)))
    at.ground((88, 104, 68))
    at.spots((0, HORIZON, SCENE_WIDTH, SCENE_HEIGHT), greens, 6500, 2.2)
    path = at.tint((154, 148, 138))
    edge = [(0, 205), (SCENE_WIDTH, 182), (SCENE_WIDTH, 352), (0, 385)]
    at.draw.polygon([(x, y - 4) for x, y in edge], fill=shade(path, 0.75))
    at.draw.polygon(edge, fill=path)
    for _ in range(500):
        x, y = at.rng.uniform(0, SCENE_WIDTH), at.rng.uniform(205, 350)
        at.draw.point((x, y), fill=shade(path, float(at.rng.uniform(0.8, 1.1))))
    at.stand(["bush", "bench", "pole", "bush"], 12, low=HORIZON, high=HORIZON + 45)


def _road(at: Easel) -> None:
    at.wall((150, 146, 140))
    at.windows(y0=8, y1=70, width=40, every=74, frame=(168, 166, 160))
    hedge: list[Rgb] = [(62, 78, 52), (76, 90, 60), (52, 66, 46), (44, 56, 40)]
    at.spots((0, 88, SCENE_WIDTH, HORIZON), hedge, 1900, 4)
    base = at.ground((106, 106, 108))
    at.litter(base, 120)
    at.draw.rectangle([0, HORIZON - 4, SCENE_WIDTH, HORIZON + 8], fill=(150, 148, 144))
    at.draw.line([(0, HORIZON + 9), (SCENE_WIDTH, HORIZON + 9)], fill=(80, 80, 82), width=2)
    for x in range(-20, SCENE_WIDTH, 120):
        at.draw.polygon(
            [(x, 252), (x + 64, 252), (x + 70, 260), (x + 2, 260)], fill=(186, 184, 176)
        )
    at.draw.rectangle([0, 366, SCENE_WIDTH, SCENE_HEIGHT], fill=(146, 142, 136))
    at.stand(["car", "bicycle", "pole", "car"], 12, low=HORIZON + 8, high=HORIZON + 50)


def _plaza(at: Easel) -> None:
    base = at.ground((166, 161, 152), top=60)
    at.tiles(base, width=40, top=60)
    at.litter(base, 120)
    at.draw.rectangle([0, 0, SCENE_WIDTH, 70], fill=at.tint((108, 110, 110)))
    at.windows(y0=4, y1=52, width=30, every=46, frame=(140, 140, 138))
    for y in range(62, 108, 8):  # steps
        at.draw.line([(0, y), (SCENE_WIDTH, y)], fill=shade(base, 0.7), width=3)
        at.draw.line([(0, y + 3), (SCENE_WIDTH, y + 3)], fill=shade(base, 1.08), width=2)
    for x in range(at.number(20, 90), SCENE_WIDTH, 150):
        stone = at.tint((156, 152, 146))
        at.draw.rectangle([x, 0, x + 24, 132], fill=stone)
        at.draw.rectangle([x + 16, 0, x + 24, 132], fill=shade(stone, 0.78))
    at.stand(["bench", "bin", "bush", "pole", "bicycle"], 14, low=HORIZON - 10, high=HORIZON + 90)


def _concrete(at: Easel) -> None:
    base = at.ground((120, 117, 113))
    at.litter(base, 160)
    at.wall((164, 161, 155))
    for x in range(0, SCENE_WIDTH, 92):
        at.draw.line([(x, 0), (x, HORIZON)], fill=(136, 134, 130), width=2)
    for _ in range(26):  # rain has run down
        x, y = at.number(0, SCENE_WIDTH), at.number(0, 60)
        at.draw.line(
            [(x, y), (x, y + at.number(20, 80))], fill=(150, 147, 140), width=at.number(1, 5)
        )
    for _ in range(6):
        x, door = at.number(0, SCENE_WIDTH), at.tint((86, 90, 94))
        at.draw.rectangle([x, 36, x + 46, HORIZON], fill=door, outline=(60, 60, 60))
        at.draw.rectangle([x + 6, 46, x + 40, 84], fill=shade(door, 0.75))
    for _ in range(12):
        x, y = at.number(0, SCENE_WIDTH), at.number(20, 90)
        at.draw.rectangle([x, y, x + 24, y + 34], fill=at.tint((166, 150, 126), 36))
    at.draw.line([(0, 300), (SCENE_WIDTH, 250)], fill=(168, 158, 104), width=4)
    at.stand(["bicycle", "bicycle", "bin", "pole", "board"], 15, low=HORIZON, high=HORIZON + 50)


PLACES: dict[str, Callable[[Easel], None]] = {
    "shop front": _shop_front,
    "brick wall": _brick_wall,
    "lawn": _lawn,
    "road": _road,
    "plaza": _plaza,
    "concrete": _concrete,
}
