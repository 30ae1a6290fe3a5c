"""Shapes in the body frame, rasterised on a canvas in materials with a LIP label."""

# h w pixels of a shape's window

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from reidkit.synthetic.pose import Limb, Point, View
from reidkit.synthetic.raster import Bool, Canvas, Patch, cone, ellipsoid, loft
from reidkit.synthetic.wardrobe import Colour, Fabric

Ring = tuple[Point, float, float]
"""Centre, half width (side to side) and half depth (back to front), in body heights."""


class Lip(enum.IntEnum):
    """The 20 labels of LIP human parsing (Gong et al. 2017), as numbered by JPPNet.

    Left and right are the person's own. Bags have no label: they are background.
    """

    BACKGROUND = 0
    HAT = 1
    HAIR = 2
    GLOVE = 3
    SUNGLASSES = 4
    UPPER = 5
    DRESS = 6
    COAT = 7
    SOCKS = 8
    PANTS = 9
    JUMPSUIT = 10
    SCARF = 11
    SKIRT = 12
    FACE = 13
    LEFT_ARM = 14
    RIGHT_ARM = 15
    LEFT_LEG = 16
    RIGHT_LEG = 17
    LEFT_SHOE = 18
    RIGHT_SHOE = 19


@dataclass
class Palette:
    """Materials of a figure: material i + 1 on the canvas is entry i."""

    labels: list[Lip] = field(default_factory=list)
    fabrics: list[Fabric] = field(default_factory=list)
    folds: list[float] = field(default_factory=list)

    def add(self, label: Lip, fabric: Fabric | Colour, folds: float = 0.0) -> int:
        """Adds a material and returns its number. `folds` is the strength of its wrinkles."""
        self.labels.append(label)
        self.fabrics.append(fabric if isinstance(fabric, Fabric) else Fabric(fabric))
        self.folds.append(folds)
        return len(self.labels)


@dataclass(frozen=True)
class Brush:
    """Draws shapes on the canvas.

    Attributes:
        lift: height of the hips above those of a person standing straight, in body heights; it
            keeps patterns and seams fixed to the body.
    """

    canvas: Canvas
    view: View
    palette: Palette
    lift: float = 0.0

    def put(
        self, patch: Patch | None, material: int | NDArray[np.uint8], where: Bool | None = None
    ) -> None:
        if patch is not None:
            self.canvas.put(patch, material, where)

    def limb(
        self,
        a: Point,
        b: Point,
        radii: tuple[float, float],
        material: int,
        *,
        along: tuple[float, float] = (0.0, 1.0),
        flat_end: bool = False,
    ) -> None:
        """Draws a round limb from a to b."""
        self.put(self.rod(a, b, radii, along=along, flat_end=flat_end), material)

    def rod(
        self,
        a: Point,
        b: Point,
        radii: tuple[float, float],
        *,
        along: tuple[float, float] = (0.0, 1.0),
        flat_end: bool = False,
    ) -> Patch | None:
        """A round limb from a to b with these radii, in body heights."""
        (start, grow_a), (end, grow_b) = self.view.project(a), self.view.project(b)
        scaled = (radii[0] * grow_a, radii[1] * grow_b)
        return cone(
            self.canvas, start, end, scaled, along=along, flat_end=flat_end, turn=self.view.yaw
        )

    def sleeve(
        self,
        limb: Limb,
        covered: float,
        radii: tuple[float, float, float],
        material: int,
        *,
        joint: float,
    ) -> None:
        """Draws cloth around a limb.

        Args:
            covered: fraction of the limb's length that is covered, from its root.
            radii: of the cloth at root, joint and end, in body heights.
            joint: position of the joint as a fraction of the length.
        """
        share = min(covered / joint, 1.0)
        self.limb(
            limb.root,
            between(limb.root, limb.middle, share),
            (radii[0], radii[0] + (radii[1] - radii[0]) * share),
            material,
            along=(0.0, 0.24 * share),
            flat_end=share < 1,
        )
        if covered > joint:
            share = (covered - joint) / (1 - joint)
            self.limb(
                limb.middle,
                between(limb.middle, limb.end, share),
                (radii[1], radii[1] + (radii[2] - radii[1]) * share),
                material,
                along=(0.24, 0.24 + 0.24 * share),
                flat_end=True,
            )

    def ball(
        self, centre: Point, half: Point, *, turn: float = 0.0, taper: float = 0.0
    ) -> Patch | None:
        """An ellipsoid of half sizes (width, height, depth), rotated with the body plus `turn`."""
        yaw = self.view.yaw + turn
        cos, sin = math.cos(yaw), math.sin(yaw)
        wide = math.hypot(half[0] * cos, half[2] * sin)
        deep = math.hypot(half[0] * sin, half[2] * cos)
        return self._blob(centre, (wide, half[1], deep), yaw, power=2, taper=taper)

    def box(self, centre: Point, half: Point) -> Patch | None:
        """A box with rounded corners, rotated with the body."""
        cos, sin = abs(math.cos(self.view.yaw)), abs(math.sin(self.view.yaw))
        wide, deep = half[0] * cos + half[2] * sin, half[0] * sin + half[2] * cos
        return self._blob(centre, (wide, half[1], deep), self.view.yaw, power=4)

    def _blob(
        self, centre: Point, half: Point, yaw: float, *, power: int, taper: float = 0.0
    ) -> Patch | None:
        spot, grow = self.view.project(centre)
        wide, high, deep = half
        high = math.hypot(high * math.cos(self.view.tilt), deep * math.sin(self.view.tilt))
        radii = (wide * grow, high * grow, deep * grow)
        return ellipsoid(self.canvas, spot, radii, turn=yaw, power=power, taper=taper)

    def tube(self, rings: Sequence[Ring]) -> Patch | None:
        """Elliptic rings from top to bottom; `along` is minus the height on a straight body."""
        cos, sin = math.cos(self.view.yaw), math.sin(self.view.yaw)
        table = []
        for centre, half_width, half_depth in rings:
            (x, y, z), grow = self.view.project(centre)
            wide = math.hypot(half_width * cos, half_depth * sin) * grow
            deep = math.hypot(half_width * sin, half_depth * cos) * grow
            table.append((x, y, z, wide, deep, self.lift - centre[1]))
        return loft(self.canvas, table, turn=self.view.yaw, drop=math.sin(self.view.tilt))


def between(a: Point, b: Point, t: float) -> Point:
    """Linear interpolation: a at t = 0, b at t = 1."""
    return a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t


def turned(point: Point, turn: float) -> Point:
    """The point rotated about the vertical axis, in radians."""
    cos, sin = math.cos(turn), math.sin(turn)
    return point[0] * cos + point[2] * sin, point[1], -point[0] * sin + point[2] * cos


def darker(colour: Colour, factor: float) -> Colour:
    return colour[0] * factor, colour[1] * factor, colour[2] * factor


def mixed(a: Colour, b: Colour, share: float) -> Colour:
    """The fraction 1 - `share` of a and `share` of b."""
    return between(a, b, share)
