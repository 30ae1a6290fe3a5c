"""One dressed person on a canvas: legs, arms and head here, trunk and bags in `trunk`.

Depth and the angle around the body decide which surface is visible (coat or shirt, face or hair,
sock or skin), so that one description gives every view.
"""

from __future__ import annotations

import numpy as np

from reidkit.synthetic.brush import Brush, Lip, Palette, between, darker, mixed, turned
from reidkit.synthetic.pose import ANKLE, HIP, Limb, Point, Pose, Skeleton, View, skeleton
from reidkit.synthetic.raster import Canvas
from reidkit.synthetic.trunk import draw_bag, draw_trunk
from reidkit.synthetic.wardrobe import Identity

SKULL: Point = (0.045, 0.066, 0.055)
"""Half width, height and depth in body heights."""

# Heights in the head, from -1 (crown) to 1 (chin).
NAPE = {"short": 0.42, "ponytail": 0.5, "bun": 0.45, "bob": 0.95, "long": 0.95}
TEMPLE = {"short": 0.05, "ponytail": 0.2, "bun": 0.2, "bob": 0.95, "long": 0.95}
HAT_EDGE = {"cap": -0.3, "beanie": -0.12, "brim": -0.25}


def draw_figure(canvas: Canvas, person: Identity, pose: Pose, view: View) -> Palette:
    """Draws the whole person on the canvas and returns the materials."""
    palette = Palette()
    body = skeleton(pose, shoulders=person.shoulders, hips=person.hips, girth=person.girth)
    brush = Brush(canvas, view, palette, body.lift)
    draw_legs(brush, person, body)
    draw_trunk(brush, person, pose, body)
    draw_arms(brush, person, body)
    draw_head(brush, person, pose, body)
    if person.bag is not None:
        draw_bag(brush, person.bag, person, body)
    return palette


def draw_legs(brush: Brush, person: Identity, body: Skeleton) -> None:
    """Draws skin, trousers, socks and shoes of both legs."""
    trousers = person.outfit in ("trousers", "shorts", "jumpsuit")
    cloth_label = Lip.JUMPSUIT if person.outfit == "jumpsuit" else Lip.PANTS
    cloth = brush.palette.add(cloth_label, person.lower, 0.9) if trousers else 0
    socks = brush.palette.add(Lip.SOCKS, person.socks)
    thick = 0.5 + 0.5 * person.girth
    loose = person.leg_fit
    for leg, skin_label, shoe_label in zip(
        body.legs, (Lip.RIGHT_LEG, Lip.LEFT_LEG), (Lip.RIGHT_SHOE, Lip.LEFT_SHOE), strict=True
    ):
        skin = brush.palette.add(skin_label, person.skin)
        covered = person.hem if trousers else 0.0
        # A skirt hangs over the knees: nothing above its hem is drawn.
        hem = body.lift + HIP - (HIP - ANKLE) * (0.0 if trousers else person.hem - 0.06)
        knee = _crossing(leg.root, leg.middle, hem)
        if covered < 0.5 and knee < 1:
            start = between(leg.root, leg.middle, knee)
            bare = (0.054 - 0.017 * knee) * thick
            brush.limb(start, leg.middle, (bare, 0.037 * thick), skin)
        if covered < 0.9:
            start = between(leg.middle, leg.end, _crossing(leg.middle, leg.end, hem))
            brush.limb(start, leg.end, (0.036 * thick, 0.023), skin)
        if covered:
            radii = (0.057 * thick * (0.6 + 0.4 * loose), 0.043 * thick * loose, 0.035 * loose)
            brush.sleeve(leg, covered, radii, cloth, joint=0.5)
        top = between(leg.middle, leg.end, 1 - person.sock)
        brush.limb(top, leg.end, (0.026 + 0.008 * person.sock, 0.025), socks)
        _draw_shoe(brush, person, leg, shoe_label)


def _crossing(a: Point, b: Point, height: float) -> float:
    """Where the line from a down to b passes `height`, as a fraction in [0, 1]."""
    return min(max((a[1] - height) / max(a[1] - b[1], 1e-3), 0.0), 1.0)


def _draw_shoe(brush: Brush, person: Identity, leg: Limb, label: Lip) -> None:
    shoes = person.shoes
    upper, sole = brush.palette.add(label, shoes.colour), brush.palette.add(label, shoes.sole)
    ankle, toe = leg.end, leg.tip
    heel = (ankle[0], ankle[1] - ANKLE * 0.4, ankle[2] - 0.018)
    patch = brush.rod(heel, (toe[0], toe[1] + 0.021, toe[2]), (0.032, 0.025))
    if patch is not None:
        brush.put(patch, np.where(patch.normal_y > 0.62, np.uint8(sole), np.uint8(upper)))
    shaft = between(ankle, leg.middle, 0.34 if shoes.boots else 0.06)
    brush.limb(shaft, ankle, (0.038 if shoes.boots else 0.032, 0.031), upper)


def draw_arms(brush: Brush, person: Identity, body: Skeleton) -> None:
    """Draws skin, sleeves, coat and gloves of both arms."""
    palette = brush.palette
    thick = 0.6 + 0.4 * person.girth
    loose = 1 + 12 * person.fit
    one_piece = {"dress": Lip.DRESS, "jumpsuit": Lip.JUMPSUIT}.get(person.outfit, Lip.UPPER)
    cloth = palette.add(one_piece, person.upper, 0.9)
    coat = palette.add(Lip.COAT, person.coat, 1.0) if person.coat is not None else 0
    gloves = palette.add(Lip.GLOVE, person.gloves) if person.gloves is not None else 0
    for arm, label in zip(body.arms, (Lip.RIGHT_ARM, Lip.LEFT_ARM), strict=True):
        skin = palette.add(label, person.skin)
        brush.limb(arm.root, arm.middle, (0.031 * thick, 0.026 * thick), skin)
        brush.limb(arm.middle, arm.end, (0.026 * thick, 0.019), skin)
        brush.limb(arm.end, arm.tip, (0.02, 0.017), gloves or skin)
        if gloves:
            brush.limb(between(arm.end, arm.middle, 0.15), arm.tip, (0.023, 0.021), gloves)
        if person.sleeve:
            radii = (0.037 * thick, 0.034 * thick * loose, 0.026 * loose)
            brush.sleeve(arm, person.sleeve * 0.97, radii, cloth, joint=0.54)
        if coat:
            radii = (0.045 * thick, 0.038 * thick * loose + 0.004, 0.028 * loose + 0.006)
            brush.sleeve(arm, 0.98, radii, coat, joint=0.54)


def draw_head(brush: Brush, person: Identity, pose: Pose, body: Skeleton) -> None:
    """Draws face, hair and hat, rotated by the pose's `head_turn` relative to the trunk."""
    _draw_face(brush, person, pose.head_turn, body.head)
    if person.hair != "bald":
        _draw_hair(brush, person, pose.head_turn, body.head)
    if person.hat is not None:
        _draw_hat(brush, person, pose.head_turn, body.head)


def _scaled(half: Point, size: float) -> Point:
    return half[0] * size, half[1] * size, half[2] * size


def _draw_face(brush: Brush, person: Identity, turn: float, centre: Point) -> None:
    palette = brush.palette
    face = palette.add(Lip.FACE, person.skin)
    eyes = palette.add(Lip.FACE, darker(person.skin, 0.5))
    mouth = palette.add(Lip.FACE, mixed(darker(person.skin, 0.78), (0.6, 0.25, 0.25), 0.3))
    patch = brush.ball(centre, _scaled(SKULL, person.head), turn=turn, taper=0.22)
    if patch is None:
        return
    angle, down = np.abs(patch.across), patch.along
    material = np.full(patch.inside.shape, face, np.uint8)
    material[(np.abs(down) < 0.09) & (np.abs(angle - 0.42) < 0.22)] = eyes
    material[(np.abs(down - 0.52) < 0.07) & (angle < 0.3)] = mouth
    if person.glasses is not None:
        glass = palette.add(Lip.SUNGLASSES, person.glasses)
        material[(np.abs(down - 0.02) < 0.15) & (angle > 0.1) & (angle < 0.85)] = glass
        material[(np.abs(down + 0.04) < 0.06) & (angle < 1.5)] = glass
    brush.put(patch, material)


def _draw_hair(brush: Brush, person: Identity, turn: float, centre: Point) -> None:
    hair = brush.palette.add(Lip.HAIR, person.hair_colour, 0.6)
    size = person.head
    x, y, z = centre
    shell = size * (1.09 if person.hair == "short" else 1.16)
    half = (SKULL[0] * shell, SKULL[1] * size * 1.06, SKULL[2] * shell)
    patch = brush.ball((x, y + 0.006, z - 0.006), half, turn=turn)
    if patch is not None:
        nape, temple = NAPE[person.hair], TEMPLE[person.hair]
        heights = (-0.5, -0.42, temple * 0.6, nape, nape)
        line = np.interp(np.abs(patch.across), (0.0, 0.55, 1.05, 1.6, 3.2), heights)
        brush.put(patch, hair, patch.along < line)

    def behind(distance: float, height: float) -> Point:
        back = turned((0.0, 0.0, -distance), turn)
        return x + back[0], y + height, z + back[2]

    if person.hair == "long":
        brush.limb(behind(0.02, 0.0), behind(0.042, -0.15), (0.05 * size, 0.046 * size), hair)
    elif person.hair == "bob":
        brush.limb(behind(0.012, 0.0), behind(0.016, -0.055), (0.054 * size, 0.05 * size), hair)
    elif person.hair == "ponytail":
        brush.limb(behind(0.06, 0.03), behind(0.085, -0.11), (0.022, 0.013), hair)
    elif person.hair == "bun":
        brush.put(brush.ball(behind(0.055, 0.05), (0.028, 0.028, 0.028)), hair)


def _draw_hat(brush: Brush, person: Identity, turn: float, centre: Point) -> None:
    assert person.hat is not None
    hat = brush.palette.add(Lip.HAT, person.hat_colour, 0.3)
    x, y, z = centre
    size = person.head
    reach = size * (1.2 if person.hat == "cap" else 1.24)
    half = (SKULL[0] * reach, SKULL[1] * size * 1.1, SKULL[2] * reach)
    patch = brush.ball((x, y + 0.01, z), half, turn=turn)
    if patch is not None:
        lower_behind = 0.16 * (np.abs(patch.across) > 1.7)
        brush.put(patch, hat, patch.along < HAT_EDGE[person.hat] + lower_behind)
    if person.hat == "cap":
        ahead = turned((0.0, 0.0, 0.062), turn)
        peak = (x + ahead[0], y + 0.03, z + ahead[2])
        brush.put(brush.ball(peak, (0.042, 0.009, 0.04), turn=turn), hat)
    elif person.hat == "brim":
        brush.put(brush.ball((x, y + 0.026, z), (0.095, 0.01, 0.1), turn=turn), hat)
