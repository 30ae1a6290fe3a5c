"""Shapes given in the body frame, put on the canvas in materials from a palette."""

# h w pixels of a shape's window

from __future__ import annotations

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


@dataclass
class Palette:
    """Materials in use: material i + 1 on the canvas is entry i."""

    labels: list[int] = field(default_factory=list)
    fabrics: list[Fabric] = field(default_factory=list)
    folds: list[float] = field(default_factory=list)

    def add(self, label: int, fabric: Fabric | Colour, folds: float = 0.0) -> int:
        """Enters a material. `folds` is how strongly its cloth wrinkles."""
        self.labels.append(label)
        self.fabrics.append(fabric if isinstance(fabric, Fabric) else Fabric(fabric))
        self.folds.append(folds)
        return len(self.labels)


@dataclass(frozen=True)
class Brush:
    """Puts shapes on the canvas. `lift` is how far the body stands above its straight height, so
    that patterns and seams walk with it."""

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
        """A round limb from a to b."""
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
        (start, grow_a), (end, grow_b) = self.view.project(a), self.view.project(b)
        radius_a, radius_b = radii[0] * grow_a, radii[1] * grow_b
        return cone(
            self.canvas, start, end, radius_a, radius_b,
            along=along, flat_end=flat_end, turn=self.view.yaw,
        )  # fmt: skip

    def sleeve(
        self,
        limb: Limb,
        covered: float,
        radii: tuple[float, float, float],
        material: int,
        *,
        joint: float,
    ) -> None:
        """Cloth around a limb from its root over a share `covered` of its length; its joint lies at
        the share `joint`. `radii` are those at root, joint and end."""
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
        """An ellipsoid of half sizes (side, height, depth), turned with the body and by `turn`
        besides."""
        yaw = self.view.yaw + turn
        cos, sin = math.cos(yaw), math.sin(yaw)
        wide = math.hypot(half[0] * cos, half[2] * sin)
        deep = math.hypot(half[0] * sin, half[2] * cos)
        return self._blob(centre, (wide, half[1], deep), yaw, power=2, taper=taper)

    def box(self, centre: Point, half: Point) -> Patch | None:
        """A box with round corners, turned with the body."""
        cos, sin = abs(math.cos(self.view.yaw)), abs(math.sin(self.view.yaw))
        wide, deep = half[0] * cos + half[2] * sin, half[0] * sin + half[2] * cos
        return self._blob(centre, (wide, half[1], deep), self.view.yaw, power=4)

    def _blob(
        self, centre: Point, half: Point, yaw: float, *, power: int, taper: float = 0.0
    ) -> Patch | None:
        spot, grow = self.view.project(centre)
        wide, high, deep = half
        high = math.hypot(high * math.cos(self.view.tilt), deep * math.sin(self.view.tilt))
        return ellipsoid(
            self.canvas, spot, wide * grow, high * grow, deep * grow,
            turn=yaw, power=power, taper=taper,
        )  # fmt: skip

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
    """The point at the share t of the way from a to b."""
    return a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t


def turned(point: Point, turn: float) -> Point:
    """Turned about the vertical axis, as a head on its neck."""
    cos, sin = math.cos(turn), math.sin(turn)
    return point[0] * cos + point[2] * sin, point[1], -point[0] * sin + point[2] * cos


def darker(colour: Colour, factor: float) -> Colour:
    return colour[0] * factor, colour[1] * factor, colour[2] * factor


def mixed(a: Colour, b: Colour, share: float) -> Colour:
    return between(a, b, share)
