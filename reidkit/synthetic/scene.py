"""Backgrounds: one wide image per camera, of which every image of a person shows a part.

A scene has SCENE_WIDTH x SCENE_HEIGHT pixels. Walls, hedges and shops fill it down to HORIZON, and
the ground is below. Nearby people are about 110 pixels tall in it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from reidkit.synthetic.clutter import SPRITES
from reidkit.synthetic.raster import Float

SCENE_HEIGHT, SCENE_WIDTH, HORIZON = 400, 760, 150

Rgb = tuple[int, int, int]


@dataclass(frozen=True)
class ScenePainter:
    """Paints a scene; the methods are shared by all kinds of places."""

    rng: np.random.Generator
    image: Image.Image
    draw: ImageDraw.ImageDraw

    def tint(self, colour: Rgb, spread: float = 12) -> Rgb:
        """The colour with noise."""
        noise = self.rng.normal(0, spread) + self.rng.normal(0, spread / 3, 3)
        r, g, b = np.clip(np.asarray(colour) + noise, 5, 250)
        return int(r), int(g), int(b)

    def number(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high))

    def wall(self, colour: Rgb, *, bottom: int = HORIZON) -> None:
        self.draw.rectangle([0, 0, SCENE_WIDTH, bottom], fill=self.tint(colour))

    def ground(self, colour: Rgb, *, top: int = HORIZON) -> Rgb:
        """Plain ground, slightly brighter towards the camera; returns its colour."""
        base = self.tint(colour)
        for y in range(top, SCENE_HEIGHT):
            self.draw.line(
                [(0, y), (SCENE_WIDTH, y)], fill=shade(base, 0.9 + 0.14 * (y - top) / SCENE_HEIGHT)
            )
        return base

    def tiles(self, base: Rgb, *, width: float, top: int = HORIZON) -> None:
        """Paving in perspective, towards a vanishing point."""
        gap = shade(base, 0.84)
        rows, step = [float(top)], 5.0
        while rows[-1] < SCENE_HEIGHT:
            rows.append(rows[-1] + step)
            step = min(step * 1.14, width * 0.8)
        centre, far = SCENE_WIDTH * self.rng.uniform(0.2, 0.8), top - 160

        def column(offset: float, y: float) -> float:
            return centre + offset * (y - far) / 260

        offsets = np.arange(-60, 60) * width
        for y0, y1 in itertools.pairwise(rows):
            for offset in offsets:
                if 0 < column(offset, y1) < SCENE_WIDTH + width and self.rng.random() < 0.3:
                    corners = [
                        (column(offset, y0), y0), (column(offset + width, y0), y0),
                        (column(offset + width, y1), y1), (column(offset, y1), y1),
                    ]  # fmt: skip
                    self.draw.polygon(corners, fill=shade(base, float(self.rng.uniform(0.9, 1.07))))
            self.draw.line([(0, y0), (SCENE_WIDTH, y0)], fill=gap)
        for offset in offsets:
            ends = [(column(offset, top), top), (column(offset, SCENE_HEIGHT), SCENE_HEIGHT)]
            self.draw.line(ends, fill=gap)

    def spots(
        self, box: tuple[int, int, int, int], colours: Sequence[Rgb], count: int, size: float
    ) -> None:
        """Small spots: leaves, stains, grass."""
        x0, y0, x1, y1 = box
        xs, ys = self.rng.uniform(x0, x1, count), self.rng.uniform(y0, y1, count)
        radii = self.rng.gamma(3, size / 3, count)
        picks = self.rng.integers(len(colours), size=count)
        for x, y, r, pick in zip(xs, ys, radii, picks, strict=True):
            self.draw.ellipse([x - r, y - r * 0.8, x + r, y + r * 0.8], fill=colours[pick])

    def litter(self, base: Rgb, count: int) -> None:
        """Stains, leaves and drain covers on the ground."""
        stains = [shade(base, 0.93), shade(base, 0.96), shade(base, 1.03)]
        self.spots((0, HORIZON, SCENE_WIDTH, SCENE_HEIGHT), stains, count, 4)
        leaves: list[Rgb] = [(112, 92, 58), (86, 82, 52), (132, 112, 76)]
        self.spots((0, HORIZON, SCENE_WIDTH, SCENE_HEIGHT), leaves, count // 2, 1.3)
        for _ in range(2):
            x, y = self.number(0, SCENE_WIDTH), self.number(HORIZON + 40, SCENE_HEIGHT - 20)
            self.draw.ellipse([x - 16, y - 6, x + 16, y + 6], fill=shade(base, 0.62))
            self.draw.ellipse([x - 12, y - 4, x + 12, y + 4], fill=shade(base, 0.75))

    def windows(self, *, y0: int, y1: int, width: int, every: int, frame: Rgb) -> None:
        for x in range(self.number(10, every), SCENE_WIDTH, every):
            glass = self.tint((62, 72, 82), 16)
            self.draw.rectangle([x, y0, x + width, y1], fill=glass, outline=frame, width=3)
            gleam = [
                (x + 4, y1 - 3),
                (x + width * 0.4, y0 + 3),
                (x + width * 0.6, y0 + 3),
                (x + 14, y1 - 3),
            ]
            self.draw.polygon(gleam, fill=shade(glass, 1.4))
            self.draw.line([(x + width / 2, y0), (x + width / 2, y1)], fill=frame, width=2)

    def stand(self, names: Sequence[str], count: int, *, low: int, high: int) -> None:
        """Places objects on the ground between two rows of the scene, far ones first."""
        spots = sorted(
            (self.number(low, high), self.number(0, SCENE_WIDTH), names[self.number(0, len(names))])
            for _ in range(count)
        )
        for foot, x, name in spots:
            sprite = SPRITES[name](self.rng)
            scale = 0.62 + 0.5 * (foot - HORIZON) / 250
            sprite = sprite.resize(
                (max(int(sprite.width * scale), 2), max(int(sprite.height * scale), 2))
            )
            w, h = sprite.size
            dark = Image.new("L", (w + 12, 16))
            ImageDraw.Draw(dark).ellipse([4, 4, w + 8, 12], fill=120)
            dark = dark.filter(ImageFilter.GaussianBlur(2))
            self.image.paste((30, 30, 32), (x - w // 2 - 6, foot - 9), dark)
            self.image.paste(sprite, (x - w // 2, foot - h), sprite)


def shade(colour: Rgb, factor: float) -> Rgb:
    """The colour at another brightness."""
    r, g, b = (min(int(c * factor), 255) for c in colour)
    return r, g, b


def finish(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Blurs edges and adds uneven light."""
    colour = np.asarray(image.filter(ImageFilter.GaussianBlur(0.7)), np.float32) / 255
    size = (SCENE_HEIGHT, SCENE_WIDTH)
    light = 0.02 * texture(rng, size, (2, 5), (0.7, 0.5)) + 0.07 * texture(
        rng, size, (150,), (1.0,)
    )
    colour = colour * (1 + light)[..., None]
    if rng.random() < 0.6:  # soft patches of tree shadow on the ground
        leaves = texture(rng, size, (8, 18, 50), (0.5, 0.7, 0.9))
        below = np.arange(size[0])[:, None] > HORIZON
        colour = colour * (1 - 0.26 * np.clip(leaves * 0.9 + 0.1, 0, 1) * below)[..., None]
    return Image.fromarray((np.clip(colour, 0, 1) * 255 + 0.5).astype(np.uint8))


def texture(
    rng: np.random.Generator,
    size: tuple[int, int],
    grains: tuple[int, ...],
    weights: tuple[float, ...],
) -> Float:
    """Smooth noise [H, W] around 0.

    Args:
        grains: sizes of the octaves in pixels.
        weights: of the octaves, each of about unit variance.
    """
    total = np.zeros(size, np.float32)
    for grain, weight in zip(grains, weights, strict=True):
        coarse = rng.standard_normal((size[0] // grain + 3, size[1] // grain + 3), np.float32)
        image = Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.BICUBIC)
        total += np.asarray(image) * weight
    return total
