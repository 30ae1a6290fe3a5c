"""The six kinds of scenes behind people."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from reidkit.synthetic.scene import (
    HORIZON,
    SCENE_HEIGHT,
    SCENE_WIDTH,
    Rgb,
    ScenePainter,
    finish,
    shade,
)


def draw_place(kind: str, rng: np.random.Generator) -> Image.Image:
    """Paints a scene of this kind (a key of PLACES)."""
    image = Image.new("RGB", (SCENE_WIDTH, SCENE_HEIGHT), (128, 128, 128))
    PLACES[kind](ScenePainter(rng, image, ImageDraw.Draw(image)))
    return finish(image, rng)


def _shop_front(scene: ScenePainter) -> None:
    base = scene.ground((152, 148, 142))
    scene.tiles(base, width=26)
    scene.litter(base, 60)
    scene.wall((120, 112, 104))
    signs: list[Rgb] = [(150, 48, 44), (48, 74, 118), (196, 186, 166), (66, 98, 74), (90, 84, 80)]
    x = 0
    while x < SCENE_WIDTH:
        width = scene.number(80, 160)
        scene.draw.rectangle(
            [x + 3, 6, x + width - 6, 34], fill=scene.tint(signs[scene.number(0, 5)])
        )
        for letter in range(x + 14, x + width - 22, 11):
            if scene.rng.random() < 0.8:
                scene.draw.rectangle([letter, 14, letter + 7, 26], fill=(216, 210, 196))
        glass = scene.tint((72, 70, 68), 18)
        scene.draw.rectangle([x + 5, 40, x + width - 8, HORIZON - 6], fill=glass)
        for _ in range(30):  # goods in the window
            gx, gy = scene.number(x + 8, x + width - 18), scene.number(46, HORIZON - 16)
            goods = scene.tint((120, 104, 88), 42)
            scene.draw.rectangle(
                [gx, gy, gx + scene.number(4, 16), gy + scene.number(4, 14)], fill=goods
            )
        door = x + scene.number(10, max(width - 50, 11))
        scene.draw.rectangle([door, 44, door + 34, HORIZON], fill=shade(glass, 0.7))
        scene.draw.line([(door + 17, 44), (door + 17, HORIZON)], fill=(150, 148, 144), width=2)
        scene.draw.line([(x, 0), (x, HORIZON)], fill=(60, 56, 54), width=6)
        x += width
    scene.stand(
        ["bicycle", "bin", "bicycle", "board", "bush"], 16, low=HORIZON + 2, high=HORIZON + 50
    )


def _brick_wall(scene: ScenePainter) -> None:
    base = scene.ground((138, 136, 132))
    scene.tiles(base, width=34)
    scene.litter(base, 90)
    brick = scene.tint((136, 94, 80), 14)
    scene.draw.rectangle([0, 0, SCENE_WIDTH, HORIZON], fill=shade(brick, 1.15))
    for row, y in enumerate(range(0, HORIZON, 6)):
        for x in range(-14 + (row % 2) * 7, SCENE_WIDTH, 14):
            scene.draw.rectangle([x, y, x + 12, y + 4], fill=scene.tint(brick, 8))
    scene.windows(y0=22, y1=92, width=56, every=170, frame=(184, 180, 172))
    scene.draw.rectangle([0, HORIZON - 12, SCENE_WIDTH, HORIZON], fill=(98, 94, 92))
    scene.stand(["bicycle", "bush", "pole", "bin", "bush"], 15, low=HORIZON + 2, high=HORIZON + 70)


def _lawn(scene: ScenePainter) -> None:
    greens: list[Rgb] = [(74, 92, 56), (86, 104, 66), (60, 78, 48), (100, 114, 78), (50, 64, 42)]
    scene.draw.rectangle([0, 0, SCENE_WIDTH, HORIZON], fill=(58, 74, 48))
    scene.spots((0, 0, SCENE_WIDTH, HORIZON), [*greens, (36, 48, 33), (112, 124, 88)], 4200, 3.2)
    for _ in range(9):
        x, width = scene.rng.uniform(0, SCENE_WIDTH), scene.rng.uniform(5, 12)
        scene.draw.rectangle([x, 0, x + width, HORIZON + 6], fill=scene.tint((78, 66, 54)))
    scene.ground((88, 104, 68))
    scene.spots((0, HORIZON, SCENE_WIDTH, SCENE_HEIGHT), greens, 6500, 2.2)
    path = scene.tint((154, 148, 138))
    edge = [(0, 205), (SCENE_WIDTH, 182), (SCENE_WIDTH, 352), (0, 385)]
    scene.draw.polygon([(x, y - 4) for x, y in edge], fill=shade(path, 0.75))
    scene.draw.polygon(edge, fill=path)
    for _ in range(500):
        x, y = scene.rng.uniform(0, SCENE_WIDTH), scene.rng.uniform(205, 350)
        scene.draw.point((x, y), fill=shade(path, float(scene.rng.uniform(0.8, 1.1))))
    scene.stand(["bush", "bench", "pole", "bush"], 12, low=HORIZON, high=HORIZON + 45)


def _road(scene: ScenePainter) -> None:
    scene.wall((150, 146, 140))
    scene.windows(y0=8, y1=70, width=40, every=74, frame=(168, 166, 160))
    hedge: list[Rgb] = [(62, 78, 52), (76, 90, 60), (52, 66, 46), (44, 56, 40)]
    scene.spots((0, 88, SCENE_WIDTH, HORIZON), hedge, 1900, 4)
    base = scene.ground((106, 106, 108))
    scene.litter(base, 120)
    scene.draw.rectangle([0, HORIZON - 4, SCENE_WIDTH, HORIZON + 8], fill=(150, 148, 144))
    scene.draw.line([(0, HORIZON + 9), (SCENE_WIDTH, HORIZON + 9)], fill=(80, 80, 82), width=2)
    for x in range(-20, SCENE_WIDTH, 120):
        scene.draw.polygon(
            [(x, 252), (x + 64, 252), (x + 70, 260), (x + 2, 260)], fill=(186, 184, 176)
        )
    scene.draw.rectangle([0, 366, SCENE_WIDTH, SCENE_HEIGHT], fill=(146, 142, 136))
    scene.stand(["car", "bicycle", "pole", "car"], 12, low=HORIZON + 8, high=HORIZON + 50)


def _plaza(scene: ScenePainter) -> None:
    base = scene.ground((166, 161, 152), top=60)
    scene.tiles(base, width=40, top=60)
    scene.litter(base, 120)
    scene.draw.rectangle([0, 0, SCENE_WIDTH, 70], fill=scene.tint((108, 110, 110)))
    scene.windows(y0=4, y1=52, width=30, every=46, frame=(140, 140, 138))
    for y in range(62, 108, 8):  # steps
        scene.draw.line([(0, y), (SCENE_WIDTH, y)], fill=shade(base, 0.7), width=3)
        scene.draw.line([(0, y + 3), (SCENE_WIDTH, y + 3)], fill=shade(base, 1.08), width=2)
    for x in range(scene.number(20, 90), SCENE_WIDTH, 150):
        stone = scene.tint((156, 152, 146))
        scene.draw.rectangle([x, 0, x + 24, 132], fill=stone)
        scene.draw.rectangle([x + 16, 0, x + 24, 132], fill=shade(stone, 0.78))
    scene.stand(
        ["bench", "bin", "bush", "pole", "bicycle"], 14, low=HORIZON - 10, high=HORIZON + 90
    )


def _concrete(scene: ScenePainter) -> None:
    base = scene.ground((120, 117, 113))
    scene.litter(base, 160)
    scene.wall((164, 161, 155))
    for x in range(0, SCENE_WIDTH, 92):
        scene.draw.line([(x, 0), (x, HORIZON)], fill=(136, 134, 130), width=2)
    for _ in range(26):  # water stains
        x, y = scene.number(0, SCENE_WIDTH), scene.number(0, 60)
        scene.draw.line(
            [(x, y), (x, y + scene.number(20, 80))], fill=(150, 147, 140), width=scene.number(1, 5)
        )
    for _ in range(6):
        x, door = scene.number(0, SCENE_WIDTH), scene.tint((86, 90, 94))
        scene.draw.rectangle([x, 36, x + 46, HORIZON], fill=door, outline=(60, 60, 60))
        scene.draw.rectangle([x + 6, 46, x + 40, 84], fill=shade(door, 0.75))
    for _ in range(12):
        x, y = scene.number(0, SCENE_WIDTH), scene.number(20, 90)
        scene.draw.rectangle([x, y, x + 24, y + 34], fill=scene.tint((166, 150, 126), 36))
    scene.draw.line([(0, 300), (SCENE_WIDTH, 250)], fill=(168, 158, 104), width=4)
    scene.stand(["bicycle", "bicycle", "bin", "pole", "board"], 15, low=HORIZON, high=HORIZON + 50)


PLACES: dict[str, Callable[[ScenePainter], None]] = {
    "shop front": _shop_front,
    "brick wall": _brick_wall,
    "lawn": _lawn,
    "road": _road,
    "plaza": _plaza,
    "concrete": _concrete,
}
