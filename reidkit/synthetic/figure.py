"""Builds one dressed person out of shapes.

Every shape is given in the body frame, projected and put on the canvas; which surface is seen where
(coat or shirt, face or hair, sock or skin) follows from depth and from the angle around the body.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from reidkit.synthetic import lip
from reidkit.synthetic.pose import ANKLE, HIP, NECK, Limb, Point, Pose, Skeleton, View, skeleton
from reidkit.synthetic.raster import Canvas, Patch, cone, ellipsoid, loft
from reidkit.synthetic.wardrobe import Colour, Fabric, Identity


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
class Figure:
    """A person put on a canvas: who, in which pose, seen how."""

    identity: Identity
    pose: Pose
    view: View


def draw_figure(canvas: Canvas, figure: Figure) -> Palette:
    """Puts the whole person on the canvas and returns the materials used."""
    palette = Palette()
    who = figure.identity
    body = skeleton(figure.pose, shoulders=who.shoulders, hips=who.hips, girth=who.girth)
    brush = Brush(canvas, figure.view, palette)
    _legs(brush, who, body)
    _trunk(brush, who, figure.pose, body)
    _arms(brush, who, body)
    _head(brush, who, figure.pose, body)
    _bag(brush, who, figure.pose, body)
    return palette


@dataclass(frozen=True)
class Brush:
    """Puts shapes given in the body frame on the canvas."""

    canvas: Canvas
    view: View
    palette: Palette

    def limb(
        self,
        a: Point,
        b: Point,
        radius_a: float,
        radius_b: float,
        material: int,
        *,
        along: tuple[float, float] = (0.0, 1.0),
        flat_end: bool = False,
    ) -> None:
        (start, grow_a), (end, grow_b) = self.view.project(a), self.view.project(b)
        patch = cone(
            self.canvas,
            start,
            end,
            radius_a * grow_a,
            radius_b * grow_b,
            along=along,
            flat_end=flat_end,
            turn=self.view.yaw,
        )
        if patch is not None:
            self.canvas.put(patch, material)

    def ball(
        self, centre: Point, half: Point, *, turn: float = 0.0, power: int = 2, taper: float = 0.0
    ) -> Patch | None:
        """An ellipsoid or rounded box of half sizes (side, height, depth), turned with the body and
        by `turn` besides."""
        spot, grow = self.view.project(centre)
        yaw = self.view.yaw + turn
        cos, sin = abs(math.cos(yaw)), abs(math.sin(yaw))
        if power == 2:
            wide, deep = (
                math.hypot(half[0] * cos, half[2] * sin),
                math.hypot(half[0] * sin, half[2] * cos),
            )
        else:
            wide, deep = half[0] * cos + half[2] * sin, half[0] * sin + half[2] * cos
        high = math.hypot(half[1] * math.cos(self.view.tilt), deep * math.sin(self.view.tilt))
        return ellipsoid(
            self.canvas,
            spot,
            wide * grow,
            high * grow,
            deep * grow,
            turn=yaw,
            power=power,
            taper=taper,
        )

    def put(
        self, patch: Patch | None, material: int | np.ndarray, where: np.ndarray | None = None
    ) -> None:
        if patch is not None:
            self.canvas.put(patch, material, where)

    def tube(
        self, rings: Sequence[tuple[Point, float, float]], *, twist: float = 0.0
    ) -> Patch | None:
        """Elliptic rings (centre, half width, half depth) from top to bottom."""
        cos, sin = math.cos(self.view.yaw + twist), math.sin(self.view.yaw + twist)
        table = []
        for centre, half_width, half_depth in rings:
            (x, y, z), grow = self.view.project(centre)
            wide = math.hypot(half_width * cos, half_depth * sin) * grow
            deep = math.hypot(half_width * sin, half_depth * cos) * grow
            table.append((x, y, z, wide, deep, -centre[1]))
        return loft(self.canvas, table, turn=self.view.yaw + twist, drop=math.sin(self.view.tilt))


def _between(a: Point, b: Point, t: float) -> Point:
    return a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t


def _crossing(a: Point, b: Point, height: float) -> float:
    """How far along a -> b, 0..1, the way down passes `height`."""
    return min(max((a[1] - height) / max(a[1] - b[1], 1e-3), 0.0), 1.0)


def _legs(brush: Brush, who: Identity, body: Skeleton) -> None:
    trousers = who.outfit in ("trousers", "shorts", "jumpsuit")
    cloth_label = lip.JUMPSUIT if who.outfit == "jumpsuit" else lip.PANTS
    cloth = brush.palette.add(cloth_label, who.lower, 0.9) if trousers else 0
    socks = brush.palette.add(lip.SOCKS, who.socks)
    thick = 0.5 + 0.5 * who.girth
    for leg, skin_label, shoe_label in zip(
        body.legs, (lip.RIGHT_LEG, lip.LEFT_LEG), (lip.RIGHT_SHOE, lip.LEFT_SHOE), strict=True
    ):
        skin = brush.palette.add(skin_label, who.skin)
        covered = who.hem if trousers else 0.0
        # A skirt drapes over the knees: what is above its hem is not drawn at all.
        hem = body.lift + HIP - (HIP - ANKLE) * (0.0 if trousers else who.hem - 0.06)
        knee = _crossing(leg.root, leg.middle, hem)
        if covered < 0.5 and knee < 1:
            start = _between(leg.root, leg.middle, knee)
            brush.limb(start, leg.middle, (0.054 - 0.017 * knee) * thick, 0.037 * thick, skin)
        if covered < 0.9:
            start = _between(leg.middle, leg.end, _crossing(leg.middle, leg.end, hem))
            brush.limb(start, leg.end, 0.036 * thick, 0.023, skin)
        if covered:
            _sleeve(brush, leg, covered, cloth, (0.064 * thick, 0.047 * thick, 0.037), top=0.5)
        top = _between(leg.middle, leg.end, 1 - who.sock)
        brush.limb(top, leg.end, 0.026 + 0.008 * who.sock, 0.025, socks)
        _shoe(brush, who, leg, shoe_label)


def _sleeve(
    brush: Brush,
    limb: Limb,
    covered: float,
    material: int,
    radii: tuple[float, float, float],
    *,
    top: float,
) -> None:
    """Cloth around a limb from its root over a share `covered` of its length; the joint lies at
    `top` of it."""
    root, joint, end = radii
    half = min(covered / top, 1.0)
    edge = root + (joint - root) * half
    brush.limb(
        limb.root,
        _between(limb.root, limb.middle, half),
        root,
        edge,
        material,
        along=(0.0, 0.24 * half),
        flat_end=half < 1,
    )
    if covered > top:
        rest = (covered - top) / (1 - top)
        brush.limb(
            limb.middle,
            _between(limb.middle, limb.end, rest),
            joint,
            joint + (end - joint) * rest,
            material,
            along=(0.24, 0.24 + 0.24 * rest),
            flat_end=True,
        )


def _shoe(brush: Brush, who: Identity, leg: Limb, label: int) -> None:
    upper = brush.palette.add(label, who.shoes.colour)
    sole = brush.palette.add(label, who.shoes.sole)
    ankle, toe = leg.end, leg.tip
    heel = (ankle[0], ankle[1] - ANKLE * 0.4, ankle[2] - 0.018)
    ball = (toe[0], toe[1] + 0.021, toe[2])
    (a, grow_a), (b, grow_b) = brush.view.project(heel), brush.view.project(ball)
    patch = cone(brush.canvas, a, b, 0.032 * grow_a, 0.024 * grow_b)
    if patch is not None:
        below = patch.normal_y > 0.62
        brush.put(patch, np.where(below, np.uint8(sole), np.uint8(upper)))
    high = 0.34 if who.shoes.boots else 0.06
    brush.limb(
        _between(ankle, leg.middle, high), ankle, 0.032 + 0.006 * who.shoes.boots, 0.031, upper
    )


def _rings(
    who: Identity, body: Skeleton, *, hem: float, thick: float
) -> list[tuple[Point, float, float]]:
    """The trunk's outline from the neck down to `hem` (body heights), `thick` of cloth around."""
    girth = who.girth
    broad = who.shoulders * (0.85 + 0.15 * girth)
    table = [
        (0.853, 0.036, 0.036),
        (0.838, 0.06 * broad, 0.042),
        (0.822, 0.09 * broad, 0.05),
        (0.795, 0.113 * broad, 0.058 * girth),
        (0.74, 0.108 * broad * (0.8 + 0.2 * girth), 0.068 * girth),
        (0.66, 0.09 * girth, 0.061 * girth),
        (0.61, 0.084 * girth, 0.059 * girth),
        (0.54, 0.094 * girth * who.hips, 0.068 * girth),
        (0.49, 0.095 * girth * who.hips, 0.067 * girth),
        (0.3, 0.1 * girth * who.hips, 0.075 * girth),
    ]
    low = [row for row in table if row[0] <= hem][:1] or table[-1:]
    rows = [row for row in table if row[0] > hem] + [(hem, low[0][1], low[0][2])]
    lean_x = (body.neck[0] - body.pelvis[0]) / (NECK - HIP)
    lean_y = (body.neck[1] - body.pelvis[1]) / (NECK - HIP)
    lean_z = (body.neck[2] - body.pelvis[2]) / (NECK - HIP)
    rings = []
    for y, a, b in rows:
        high = y - HIP
        bent = max(high, 0.0)
        centre = (
            body.pelvis[0] + bent * lean_x,
            body.pelvis[1] + (high * lean_y if high > 0 else high),
            body.pelvis[2] + bent * lean_z,
        )
        rings.append((centre, a + thick, b + thick))
    return rings


def _trunk(brush: Brush, who: Identity, pose: Pose, body: Skeleton) -> None:
    palette = brush.palette
    skin = palette.add(lip.FACE, who.skin)
    brush.limb(
        body.neck, (body.neck[0], body.neck[1] - 0.05, body.neck[2] - 0.01), 0.03, 0.036, skin
    )
    lower_label = {"jumpsuit": lip.JUMPSUIT, "skirt": lip.SKIRT}.get(who.outfit, lip.PANTS)
    upper_label = {"dress": lip.DRESS, "jumpsuit": lip.JUMPSUIT}.get(who.outfit, lip.UPPER)
    upper = palette.add(upper_label, who.upper, 0.8)
    if who.outfit in ("trousers", "shorts", "jumpsuit"):
        lower = palette.add(lower_label, who.lower, 0.7)
        rings = _rings(who, body, hem=0.462, thick=0.002)
        brush.put(brush.tube(rings[4:]), lower)
    elif who.outfit == "skirt":
        lower = palette.add(lower_label, who.lower, 1.0)
        brush.put(brush.tube(_skirt(who, body, pose, top=0.62)), lower)
    if who.outfit == "dress":
        rings = _rings(who, body, hem=0.56, thick=0.004)
        brush.put(brush.tube(rings + _skirt(who, body, pose, top=0.55)), upper)
    else:
        hem = {"jumpsuit": 0.47, "skirt": 0.585}.get(who.outfit, 0.515)
        brush.put(brush.tube(_rings(who, body, hem=hem, thick=0.005)), upper)
    if who.coat is not None:
        coat = palette.add(lip.COAT, who.coat, 1.0)
        patch = brush.tube(_rings(who, body, hem=who.coat_hem, thick=0.02))
        if patch is not None:
            closed = np.abs(patch.across) > pose.coat_open if pose.coat_open else None
            brush.put(patch, coat, closed)
    if who.scarf is not None:
        scarf = palette.add(lip.SCARF, who.scarf, 0.8)
        brush.put(
            brush.ball((body.neck[0], body.neck[1] - 0.022, body.neck[2]), (0.062, 0.03, 0.062)),
            scarf,
        )
        front = (
            body.chest[0] + 0.025,
            body.chest[1] + 0.09,
            body.chest[2] + 0.065 * who.girth + 0.012,
        )
        end = (
            body.chest[0] + 0.035,
            body.chest[1] - 0.07,
            body.chest[2] + 0.072 * who.girth + 0.012,
        )
        brush.limb(front, end, 0.022, 0.026, scarf, flat_end=True)


def _skirt(
    who: Identity, body: Skeleton, pose: Pose, *, top: float
) -> list[tuple[Point, float, float]]:
    """Waist to hem; wide enough for the step it hides."""
    hem = HIP - (HIP - ANKLE) * who.hem
    spread = 0.09 + 0.05 * who.hem + 0.02 * pose.stride
    reach = 0.065 + (0.05 + 0.11 * pose.stride) * abs(math.sin(pose.phase)) * who.hem
    x, y, z = body.pelvis
    rows = [
        (top, 0.085, 0.06),
        (0.53, 0.1 * who.hips, 0.074),
        (0.47, 0.104 * who.hips, 0.078),
        (hem, spread + 0.015, max(reach + 0.03, 0.085)),
    ]
    return [
        ((x, y + (row - HIP), z), a * who.girth, b * who.girth) for row, a, b in rows if row <= top
    ]


def _arms(brush: Brush, who: Identity, body: Skeleton) -> None:
    palette = brush.palette
    thick = 0.6 + 0.4 * who.girth
    one_piece = {"dress": lip.DRESS, "jumpsuit": lip.JUMPSUIT}.get(who.outfit, lip.UPPER)
    cloth = palette.add(one_piece, who.upper, 0.9)
    coat = palette.add(lip.COAT, who.coat, 1.0) if who.coat is not None else 0
    gloves = palette.add(lip.GLOVE, who.gloves) if who.gloves is not None else 0
    for arm, label in zip(body.arms, (lip.RIGHT_ARM, lip.LEFT_ARM), strict=True):
        skin = palette.add(label, who.skin)
        brush.limb(arm.root, arm.middle, 0.031 * thick, 0.026 * thick, skin)
        brush.limb(arm.middle, arm.end, 0.027 * thick, 0.019, skin)
        brush.limb(arm.end, arm.tip, 0.019, 0.016, gloves or skin)
        if gloves:
            brush.limb(_between(arm.end, arm.middle, 0.15), arm.tip, 0.023, 0.021, gloves)
        if who.sleeve:
            _sleeve(
                brush,
                arm,
                who.sleeve * 0.97,
                cloth,
                (0.037 * thick, 0.034 * thick, 0.027),
                top=0.54,
            )
        if coat:
            _sleeve(brush, arm, 0.98, coat, (0.044 * thick, 0.042 * thick, 0.034), top=0.54)


def _head(brush: Brush, who: Identity, pose: Pose, body: Skeleton) -> None:
    palette = brush.palette
    size = who.head
    x, y, z = body.head
    turn = pose.head_turn
    face = palette.add(lip.FACE, who.skin)
    dark = palette.add(lip.FACE, _shade(who.skin, 0.5))
    lips = palette.add(lip.FACE, _blend(_shade(who.skin, 0.78), (0.6, 0.25, 0.25), 0.3))
    brush_hair = palette.add(lip.HAIR, who.hair_colour, 0.5)
    skull = (0.045 * size, 0.066 * size, 0.055 * size)
    patch = brush.ball((x, y, z), skull, turn=turn, taper=0.22)
    if patch is not None:
        angle, down = np.abs(patch.across), patch.along
        material = np.full(patch.inside.shape, face, np.uint8)
        material[(np.abs(down - 0.0) < 0.09) & (np.abs(angle - 0.42) < 0.22)] = dark
        material[(np.abs(down - 0.52) < 0.07) & (angle < 0.3)] = lips
        if who.glasses is not None:
            glass = palette.add(lip.SUNGLASSES, who.glasses)
            material[(np.abs(down - 0.02) < 0.15) & (angle > 0.1) & (angle < 0.85)] = glass
            material[(np.abs(down + 0.04) < 0.06) & (angle < 1.5)] = glass
        brush.put(patch, material)
    if who.hair != "bald":
        shell = 1.09 if who.hair == "short" else 1.16
        patch = brush.ball(
            (x, y + 0.006, z - 0.006),
            (skull[0] * shell, skull[1] * 1.06, skull[2] * shell),
            turn=turn,
        )
        if patch is not None:
            angle = np.abs(patch.across)
            # The hairline, as a height in the head (-1 top, 1 chin): forehead, temples, nape.
            nape = {"short": 0.42, "ponytail": 0.5, "bun": 0.45}.get(who.hair, 0.95)
            side = 0.05 if who.hair == "short" else (nape if who.hair in ("bob", "long") else 0.2)
            line = np.interp(
                angle, (0.0, 0.55, 1.05, 1.6, 3.2), (-0.5, -0.42, side * 0.6, nape, nape)
            )
            brush.put(patch, brush_hair, patch.along < line)
    back = _turned((0.0, 0.0, -1.0), turn)

    def behind(distance: float, height: float) -> Point:
        return x + back[0] * distance, y + height, z + back[2] * distance

    if who.hair == "long":
        brush.limb(behind(0.02, 0.0), behind(0.042, -0.15), 0.05 * size, 0.046 * size, brush_hair)
    elif who.hair == "bob":
        brush.limb(behind(0.012, 0.0), behind(0.016, -0.055), 0.054 * size, 0.05 * size, brush_hair)
    elif who.hair == "ponytail":
        brush.limb(behind(0.06, 0.03), behind(0.085, -0.11), 0.022, 0.013, brush_hair)
    elif who.hair == "bun":
        brush.put(brush.ball(behind(0.055, 0.05), (0.028, 0.028, 0.028)), brush_hair)
    _hat(brush, who, (x, y, z), turn)


def _hat(brush: Brush, who: Identity, head: Point, turn: float) -> None:
    if who.hat is None:
        return
    hat = brush.palette.add(lip.HAT, who.hat_colour, 0.3)
    x, y, z = head
    size = who.head
    reach = 1.2 if who.hat == "cap" else 1.24
    patch = brush.ball(
        (x, y + 0.01, z),
        (0.045 * size * reach, 0.067 * size * 1.08, 0.055 * size * reach),
        turn=turn,
    )
    if patch is not None:
        edge = {"cap": -0.3, "beanie": -0.12, "brim": -0.25}[who.hat]
        brush.put(patch, hat, patch.along < edge + 0.16 * (np.abs(patch.across) > 1.7))
    forward = _turned((0.0, 0.0, 1.0), turn)
    if who.hat == "cap":
        peak = (x + forward[0] * 0.062, y + 0.03, z + forward[2] * 0.062)
        brush.put(brush.ball(peak, (0.042, 0.009, 0.04), turn=turn), hat)
    elif who.hat == "brim":
        brush.put(brush.ball((x, y + 0.026, z), (0.095, 0.01, 0.1), turn=turn), hat)


def _bag(brush: Brush, who: Identity, pose: Pose, body: Skeleton) -> None:
    bag = who.bag
    if bag is None:
        return
    cloth = brush.palette.add(lip.BACKGROUND, bag.colour, 0.3)
    seam = brush.palette.add(lip.BACKGROUND, _shade(bag.colour, 0.62))
    size = bag.size
    thick = 0.02 if who.coat is not None else 0.005
    x, y, z = body.chest
    if bag.kind == "backpack":
        back = z - 0.068 * who.girth - thick - 0.045 * size
        patch = brush.ball(
            (x, y - 0.035, back), (0.082 * size, 0.115 * size, 0.058 * size), power=4
        )
        if patch is not None:
            pocket = (np.abs(patch.along - 0.15) < 0.06) & (np.abs(patch.across) > 2.2)
            brush.put(patch, np.where(pocket, np.uint8(seam), np.uint8(cloth)))
        _straps(brush, who, body, cloth, thick)
    elif bag.kind == "shoulder":
        centre = (
            bag.side * (0.105 * who.girth * who.hips + thick + 0.03),
            body.pelvis[1] + 0.005,
            -0.02,
        )
        patch = brush.ball(centre, (0.028 * size, 0.058 * size, 0.078 * size), power=4)
        if patch is not None:
            flap = np.abs(patch.along + 0.1) < 0.08
            brush.put(patch, np.where(flap, np.uint8(seam), np.uint8(cloth)))
        _sash(brush, who, body, seam, thick, bag.side)
    else:
        hand = body.arms[(bag.side + 1) // 2].tip
        brush.limb(hand, (hand[0], hand[1] - 0.035, hand[2]), 0.016, 0.022, seam)
        patch = brush.ball(
            (hand[0], hand[1] - 0.075 * size - 0.01, hand[2]),
            (0.03 * size, 0.06 * size, 0.072 * size),
            power=4,
        )
        brush.put(patch, cloth)


def _straps(brush: Brush, who: Identity, body: Skeleton, material: int, thick: float) -> None:
    """Two straps over the shoulders and down before the chest."""
    patch = brush.tube(_rings(who, body, hem=0.64, thick=thick + 0.006))
    if patch is not None:
        angle = np.abs(patch.across)
        brush.put(
            patch, material, (np.abs(angle - 0.62) < 0.15) & (patch.along > -0.84 - body.lift)
        )


def _sash(
    brush: Brush, who: Identity, body: Skeleton, material: int, thick: float, side: int
) -> None:
    """A strap from the far shoulder across the trunk to the bag."""
    patch = brush.tube(_rings(who, body, hem=0.52, thick=thick + 0.006))
    if patch is not None:
        wanted = -(0.69 - 0.15 * side * np.sin(patch.across)) - body.lift
        brush.put(patch, material, np.abs(patch.along - wanted) < 0.013)


def _turned(point: Point, turn: float) -> Point:
    cos, sin = math.cos(turn), math.sin(turn)
    return point[0] * cos + point[2] * sin, point[1], -point[0] * sin + point[2] * cos


def _shade(colour: Colour, factor: float) -> Colour:
    return colour[0] * factor, colour[1] * factor, colour[2] * factor


def _blend(a: Colour, b: Colour, share: float) -> Colour:
    return tuple(p + (q - p) * share for p, q in zip(a, b, strict=True))  # type: ignore[return-value]  # three in, three out
