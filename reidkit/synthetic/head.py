"""Head: face, glasses, hair and hat."""

from __future__ import annotations

import numpy as np

from reidkit.synthetic import lip
from reidkit.synthetic.brush import Brush, darker, mixed, turned
from reidkit.synthetic.pose import Point, Pose, Skeleton
from reidkit.synthetic.wardrobe import Identity

SKULL: Point = (0.045, 0.066, 0.055)
"""Half width, height and depth, body heights."""

# Heights in the head run from -1 (crown) to 1 (chin).
NAPE = {"short": 0.42, "ponytail": 0.5, "bun": 0.45, "bob": 0.95, "long": 0.95}
TEMPLE = {"short": 0.05, "ponytail": 0.2, "bun": 0.2, "bob": 0.95, "long": 0.95}
HAT_EDGE = {"cap": -0.3, "beanie": -0.12, "brim": -0.25}


def draw_head(brush: Brush, who: Identity, pose: Pose, body: Skeleton) -> None:
    """Face, hair and hat, turned by the pose's `head_turn` against the trunk."""
    _draw_face(brush, who, pose.head_turn, body.head)
    if who.hair != "bald":
        _draw_hair(brush, who, pose.head_turn, body.head)
    if who.hat is not None:
        _draw_hat(brush, who, pose.head_turn, body.head)


def _scaled(half: Point, size: float) -> Point:
    return half[0] * size, half[1] * size, half[2] * size


def _draw_face(brush: Brush, who: Identity, turn: float, centre: Point) -> None:
    palette = brush.palette
    face = palette.add(lip.FACE, who.skin)
    eyes = palette.add(lip.FACE, darker(who.skin, 0.5))
    mouth = palette.add(lip.FACE, mixed(darker(who.skin, 0.78), (0.6, 0.25, 0.25), 0.3))
    patch = brush.ball(centre, _scaled(SKULL, who.head), turn=turn, taper=0.22)
    if patch is None:
        return
    angle, down = np.abs(patch.across), patch.along
    material = np.full(patch.inside.shape, face, np.uint8)
    material[(np.abs(down) < 0.09) & (np.abs(angle - 0.42) < 0.22)] = eyes
    material[(np.abs(down - 0.52) < 0.07) & (angle < 0.3)] = mouth
    if who.glasses is not None:
        glass = palette.add(lip.SUNGLASSES, who.glasses)
        material[(np.abs(down - 0.02) < 0.15) & (angle > 0.1) & (angle < 0.85)] = glass
        material[(np.abs(down + 0.04) < 0.06) & (angle < 1.5)] = glass
    brush.put(patch, material)


def _draw_hair(brush: Brush, who: Identity, turn: float, centre: Point) -> None:
    hair = brush.palette.add(lip.HAIR, who.hair_colour, 0.6)
    size = who.head
    x, y, z = centre
    shell = size * (1.09 if who.hair == "short" else 1.16)
    half = (SKULL[0] * shell, SKULL[1] * size * 1.06, SKULL[2] * shell)
    patch = brush.ball((x, y + 0.006, z - 0.006), half, turn=turn)
    if patch is not None:
        nape, temple = NAPE[who.hair], TEMPLE[who.hair]
        heights = (-0.5, -0.42, temple * 0.6, nape, nape)
        line = np.interp(np.abs(patch.across), (0.0, 0.55, 1.05, 1.6, 3.2), heights)
        brush.put(patch, hair, patch.along < line)

    def behind(distance: float, height: float) -> Point:
        back = turned((0.0, 0.0, -distance), turn)
        return x + back[0], y + height, z + back[2]

    if who.hair == "long":
        brush.limb(behind(0.02, 0.0), behind(0.042, -0.15), (0.05 * size, 0.046 * size), hair)
    elif who.hair == "bob":
        brush.limb(behind(0.012, 0.0), behind(0.016, -0.055), (0.054 * size, 0.05 * size), hair)
    elif who.hair == "ponytail":
        brush.limb(behind(0.06, 0.03), behind(0.085, -0.11), (0.022, 0.013), hair)
    elif who.hair == "bun":
        brush.put(brush.ball(behind(0.055, 0.05), (0.028, 0.028, 0.028)), hair)


def _draw_hat(brush: Brush, who: Identity, turn: float, centre: Point) -> None:
    assert who.hat is not None
    hat = brush.palette.add(lip.HAT, who.hat_colour, 0.3)
    x, y, z = centre
    size = who.head
    reach = size * (1.2 if who.hat == "cap" else 1.24)
    half = (SKULL[0] * reach, SKULL[1] * size * 1.1, SKULL[2] * reach)
    patch = brush.ball((x, y + 0.01, z), half, turn=turn)
    if patch is not None:
        lower_behind = 0.16 * (np.abs(patch.across) > 1.7)
        brush.put(patch, hat, patch.along < HAT_EDGE[who.hat] + lower_behind)
    if who.hat == "cap":
        ahead = turned((0.0, 0.0, 0.062), turn)
        peak = (x + ahead[0], y + 0.03, z + ahead[2])
        brush.put(brush.ball(peak, (0.042, 0.009, 0.04), turn=turn), hat)
    elif who.hat == "brim":
        brush.put(brush.ball((x, y + 0.026, z), (0.095, 0.01, 0.1), turn=turn), hat)
