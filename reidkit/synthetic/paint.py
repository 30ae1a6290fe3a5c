"""Colours a rasterised figure by fabric, folds and light, and reduces it to image pixels."""

# H W canvas pixels, h w image pixels (H = h * SUPERSAMPLE)

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reidkit.synthetic.brush import Palette
from reidkit.synthetic.raster import Canvas, Float
from reidkit.synthetic.tuning import SUPERSAMPLE
from reidkit.synthetic.wardrobe import Fabric


@dataclass(frozen=True)
class Light:
    """Direction of the light in camera coordinates (x right, y down), and its strengths."""

    x: float
    y: float
    ambient: float
    direct: float


@dataclass(frozen=True)
class Layer:
    """A figure at image size: premultiplied rgb [h, w, 3], coverage and labels [h, w]."""

    rgb: Float
    cover: Float
    labels: NDArray[np.uint8]


def paint(canvas: Canvas, palette: Palette, light: Light, folds: Float) -> Layer:
    """Colours the figure on the canvas.

    Args:
        folds: wrinkles as relative brightness around 0, at least as large as the canvas.
    """
    H, W = canvas.material.shape
    step = SUPERSAMPLE
    h, w = H // step, W // step
    rgb = np.zeros((h, w, 3), np.float32)
    cover = np.zeros((h, w), np.float32)
    labels = np.zeros((h, w), np.uint8)
    box = _box(canvas.material, step)
    if box is None:
        return Layer(rgb, cover, labels)
    rows, columns = box
    material = canvas.material[rows, columns]
    across, along, normal_x, normal_y = canvas.surface[:, rows, columns]
    colours = np.zeros((len(palette.fabrics) + 1, 3), np.float32)
    colours[1:] = [fabric.colour for fabric in palette.fabrics]
    colour = colours[material]
    for index, fabric in enumerate(palette.fabrics, 1):
        if fabric.pattern != "plain":
            spots = np.nonzero(material == index)
            if len(spots[0]):
                share = weave(fabric, across[spots], along[spots])[:, None]
                colour[spots] += share * (np.asarray(fabric.second, np.float32) - colour[spots])
    strength = np.asarray([0.0, *palette.folds], np.float32)[material]
    colour *= _shading(
        normal_x, normal_y, light, strength * folds[: material.shape[0], : material.shape[1]]
    )[..., None]
    seen = material > 0
    colour *= seen[..., None]
    small = (
        slice(rows.start // step, rows.stop // step),
        slice(columns.start // step, columns.stop // step),
    )
    rgb[small] = _shrink(colour, step)
    cover[small] = _shrink(seen.astype(np.float32), step)
    table = np.asarray([0, *palette.labels], np.uint8)
    labels[small] = table[material[step // 2 :: step, step // 2 :: step]]
    return Layer(rgb, cover, labels)


def weave(fabric: Fabric, across: Float, along: Float) -> Float:
    """Fraction of the second colour, in [0, 1], at cloth positions [n]."""
    period = fabric.period
    if fabric.pattern == "stripes":
        return _band(along / period, 0.38)
    if fabric.pattern == "columns":
        return _band(across * (0.09 / period), 0.3)
    if fabric.pattern == "checks":
        return (_band(along / period, 0.4) + _band(across * (0.09 / period), 0.4)) * 0.45
    return _print(fabric.art, across, along)


def _band(position: Float, share: float) -> Float:
    return (position - np.floor(position) < share).astype(np.float32)


def _print(art: int, across: Float, along: Float) -> Float:
    """A mirror-symmetric motif of 5 x 5 cells on the chest, sometimes also on the back."""
    bits = np.random.default_rng(art)
    half = bits.random((5, 3)) < 0.55
    half[2, 1:] = True
    cells = np.concatenate([half, half[:, 1::-1]], axis=1).astype(np.float32)
    wide, high = float(bits.uniform(0.45, 0.8)), float(bits.uniform(0.045, 0.085))
    centre = float(bits.uniform(0.69, 0.74))
    back = bits.random() < 0.4
    share = np.zeros_like(across)
    for turn in (0.0, np.pi) if back else (0.0,):
        offset = across if turn == 0.0 else across - np.sign(across) * turn
        column = np.floor((offset / wide + 1) * 2.5).astype(np.int64)
        row = np.floor(((along + centre) / high + 1) * 2.5).astype(np.int64)
        on = (column >= 0) & (column < 5) & (row >= 0) & (row < 5)
        share[on] = cells[row[on], column[on]]
    return share


def _shading(normal_x: Float, normal_y: Float, light: Light, folds: Float) -> Float:
    normal_z = np.sqrt(np.maximum(1 - normal_x * normal_x - normal_y * normal_y, 0))
    towards = (max(1 - light.x**2 - light.y**2, 0.0)) ** 0.5
    facing = normal_x * light.x + normal_y * light.y
    facing += normal_z * towards
    np.maximum(facing, 0, out=facing)
    shade = facing * light.direct + light.ambient
    shade *= 0.78 + 0.22 * normal_z  # surfaces seen edge-on get less light from the sky
    shade *= 1 + folds
    return shade


def _box(material: NDArray[np.uint8], step: int) -> tuple[slice, slice] | None:
    """The non-empty part of the canvas, extended to whole image pixels."""
    rows, columns = np.flatnonzero(material.any(axis=1)), np.flatnonzero(material.any(axis=0))
    if not len(rows):
        return None
    return (
        slice(int(rows[0]) // step * step, (int(rows[-1]) // step + 1) * step),
        slice(int(columns[0]) // step * step, (int(columns[-1]) // step + 1) * step),
    )


def _shrink(image: Float, step: int) -> Float:
    # adding strided views is several times faster than a mean over two axes
    offsets = [(row, column) for row in range(step) for column in range(step)]
    total = image[::step, ::step].copy()
    for row, column in offsets[1:]:
        total += image[row::step, column::step]
    total /= len(offsets)
    return total
