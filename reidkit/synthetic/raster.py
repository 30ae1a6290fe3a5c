"""A small rasteriser with a depth buffer, for round shapes.

Each shape yields a `Patch`: for the pixels of its bounding box, whether it covers them, its depth,
the position on the cloth and the surface normal. `Canvas.put` keeps the nearest surface of each
pixel. Colours are computed afterwards, once per pixel (`paint`).

Screen coordinates: x right, y down, z towards the viewer, all in canvas pixels.
"""

# H W canvas pixels, h w pixels of a patch's window

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.floating[Any]]
Bool = NDArray[np.bool_]

Spot = tuple[float, float, float]
"""x, y, z on the screen."""


class Patch(NamedTuple):
    """The surface of one shape at the pixels of its window, each array [h, w].

    Attributes:
        across: angle around the shape in radians, 0 at the front of the body.
        along: position down the cloth in body heights.
    """

    rows: slice
    columns: slice
    inside: Bool
    depth: Float
    across: Float
    along: Float
    normal_x: Float
    normal_y: Float


class Canvas:
    """Depth buffer and surface attributes, [H, W] each; material 0 is empty."""

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        self.depth = np.full((height, width), -1e9, np.float32)
        self.material = np.zeros((height, width), np.uint8)
        # across, along, normal x, normal y
        self.surface = np.zeros((4, height, width), np.float32)

    def put(
        self, patch: Patch, material: int | NDArray[np.uint8], where: Bool | None = None
    ) -> None:
        """Draws the patch where it is nearer than what has been drawn so far."""
        window = (patch.rows, patch.columns)
        depth = self.depth[window]
        nearer = patch.depth > depth
        nearer &= patch.inside
        if where is not None:
            nearer &= where
        np.copyto(depth, patch.depth, where=nearer)
        np.copyto(
            self.material[window],
            np.uint8(material) if isinstance(material, int) else material,
            where=nearer,
        )
        surface = self.surface[:, patch.rows, patch.columns]
        for layer, value in zip(
            surface, (patch.across, patch.along, patch.normal_x, patch.normal_y), strict=True
        ):
            np.copyto(layer, value, where=nearer)

    def window(self, x0: float, y0: float, x1: float, y1: float) -> tuple[slice, slice] | None:
        """The rows and columns of the canvas in a box, or None if it lies outside."""
        left, right = max(0, int(x0)), min(self.width, int(x1) + 2)
        top, bottom = max(0, int(y0)), min(self.height, int(y1) + 2)
        if left >= right or top >= bottom:
            return None
        return slice(top, bottom), slice(left, right)


def _grid(rows: slice, columns: slice) -> tuple[Float, Float]:
    y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + 0.5
    x = np.arange(columns.start, columns.stop, dtype=np.float32)[None, :] + 0.5
    return y, x


def cone(
    canvas: Canvas,
    a: Spot,
    b: Spot,
    radii: tuple[float, float],
    *,
    along: tuple[float, float] = (0.0, 1.0),
    flat_end: bool = False,
    turn: float = 0.0,
) -> Patch | None:
    """A limb: a cone from a to b with round ends.

    Args:
        radii: at a and b.
        along: range of the patch's `along` from a to b.
        flat_end: ends at b without a round cap.
        turn: yaw of the body in radians.
    """
    radius_a, radius_b = radii
    largest = max(radii)
    window = canvas.window(
        min(a[0], b[0]) - largest,
        min(a[1], b[1]) - largest,
        max(a[0], b[0]) + largest,
        max(a[1], b[1]) + largest,
    )
    if window is None:
        return None
    y, x = _grid(*window)
    x, y = x - a[0], y - a[1]
    dx, dy = b[0] - a[0], b[1] - a[1]
    length2 = max(dx * dx + dy * dy, 1e-3)
    along_raw = x * (dx / length2) + y * (dy / length2)
    t = np.clip(along_raw, 0, 1)
    radius = t * (radius_b - radius_a) + radius_a
    scale = 1 / radius
    normal_x = (x - t * dx) * scale
    normal_y = (y - t * dy) * scale
    height2 = 1 - normal_x * normal_x
    height2 -= normal_y * normal_y
    inside = height2 > 0
    if flat_end:
        inside &= along_raw < 1
    bulge = np.sqrt(np.maximum(height2, 0))
    depth = t * (b[2] - a[2]) + a[2] + bulge * radius
    across = np.arcsin(np.clip(normal_x, -1, 1)) - turn
    return Patch(
        *window,
        inside,
        depth,
        across,
        along_raw * (along[1] - along[0]) + along[0],
        normal_x,
        normal_y,
    )


def ellipsoid(
    canvas: Canvas,
    centre: Spot,
    radii: Spot,
    *,
    turn: float = 0.0,
    power: int = 2,
    taper: float = 0.0,
) -> Patch | None:
    """A head, a hand or a bag.

    The patch's `along` is the height in it, from -1 (top) to 1.

    Args:
        radii: half width, half height and half depth.
        turn: yaw in radians.
        power: 2 for an ellipsoid, 4 for a rounded box.
        taper: narrows the lower half, as of a chin.
    """
    x0, y0, z0 = centre
    radius_x, radius_y, radius_z = radii
    window = canvas.window(x0 - radius_x, y0 - radius_y, x0 + radius_x, y0 + radius_y)
    if window is None:
        return None
    y, x = _grid(*window)
    v = (y - y0) / radius_y
    u = (x - x0) / radius_x
    if taper:
        u = u / (1 - taper * np.clip(v, 0, 1))
    u, v = np.broadcast_arrays(u, v)
    square = u * u + v * v if power == 2 else u**4 + v**4
    inside = square < 1
    bulge = np.sqrt(np.maximum(1 - square, 0))
    across = _wrap(np.arctan2(u, bulge) - turn)
    flat = 1 if power == 2 else 0.7
    return Patch(
        *window,
        inside,
        bulge * radius_z + z0,
        across,
        v,
        u * np.abs(u) ** (power - 2) * flat,
        v * np.abs(v) ** (power - 2) * flat,
    )


def loft(
    canvas: Canvas,
    rings: Sequence[tuple[float, float, float, float, float, float]],
    *,
    turn: float,
    drop: float,
) -> Patch | None:
    """A torso or a skirt: elliptic rings from top to bottom.

    Args:
        rings: (x, y, z, half width, half depth, along), in ascending order of y.
        turn: yaw of the body in radians.
        drop: sine of the camera's elevation; seen from above, the front of a ring appears lower.
    """
    table = np.asarray(rings, np.float32).T  # [6, rings]
    sag = float(table[4, -1]) * drop
    window = canvas.window(
        float((table[0] - table[3]).min()),
        float(table[1, 0]),
        float((table[0] + table[3]).max()),
        float(table[1, -1]) + sag,
    )
    if window is None:
        return None
    y, x = _grid(*window)
    row = y[:, 0]
    cx, cz, half, deep, along = (
        np.interp(row, table[1], table[i]).astype(np.float32)[:, None] for i in (0, 2, 3, 4, 5)
    )
    u = (x - cx) / half
    inside = np.abs(u) < 1
    bulge = np.sqrt(np.maximum(1 - u * u, 0))
    inside &= y < (table[1, -1]) + sag * bulge
    inside &= y > (table[1, 0])
    across = _wrap(np.arctan2(u, bulge) - turn)
    rise = float(table[1, -1] - table[1, 0]) / max(float(table[5, -1] - table[5, 0]), 1e-3)
    along = along - deep * bulge * (drop / rise)
    slope = np.gradient(half[:, 0])[:, None] if len(row) > 1 else np.zeros_like(half)
    normal_y = np.broadcast_to(np.clip(-slope, -0.6, 0.6) * 0.8, u.shape)
    return Patch(*window, inside, cz + deep * bulge, across, along, u * 0.95, normal_y)


def _wrap(angle: Float) -> Float:
    """The angle in [-pi, pi)."""
    turn = 2 * np.pi
    wrapped: Float = angle - turn * np.floor(angle / turn + 0.5)
    return wrapped
