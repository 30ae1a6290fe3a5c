"""Legs, shoes and arms."""

from __future__ import annotations

import numpy as np

from reidkit.synthetic import lip
from reidkit.synthetic.brush import Brush, between
from reidkit.synthetic.pose import ANKLE, HIP, Limb, Point, Skeleton
from reidkit.synthetic.wardrobe import Identity


def draw_legs(brush: Brush, who: Identity, body: Skeleton) -> None:
    """Skin, trousers, socks and shoes of both legs."""
    trousers = who.outfit in ("trousers", "shorts", "jumpsuit")
    cloth_label = lip.JUMPSUIT if who.outfit == "jumpsuit" else lip.PANTS
    cloth = brush.palette.add(cloth_label, who.lower, 0.9) if trousers else 0
    socks = brush.palette.add(lip.SOCKS, who.socks)
    thick = 0.5 + 0.5 * who.girth
    loose = who.leg_fit
    for leg, skin_label, shoe_label in zip(
        body.legs, (lip.RIGHT_LEG, lip.LEFT_LEG), (lip.RIGHT_SHOE, lip.LEFT_SHOE), strict=True
    ):
        skin = brush.palette.add(skin_label, who.skin)
        covered = who.hem if trousers else 0.0
        # A skirt drapes over the knees: what is above its hem is not drawn at all.
        hem = body.lift + HIP - (HIP - ANKLE) * (0.0 if trousers else who.hem - 0.06)
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
        top = between(leg.middle, leg.end, 1 - who.sock)
        brush.limb(top, leg.end, (0.026 + 0.008 * who.sock, 0.025), socks)
        _draw_shoe(brush, who, leg, shoe_label)


def _crossing(a: Point, b: Point, height: float) -> float:
    """How far along a -> b, 0..1, the way down passes `height`."""
    return min(max((a[1] - height) / max(a[1] - b[1], 1e-3), 0.0), 1.0)


def _draw_shoe(brush: Brush, who: Identity, leg: Limb, label: int) -> None:
    shoes = who.shoes
    upper, sole = brush.palette.add(label, shoes.colour), brush.palette.add(label, shoes.sole)
    ankle, toe = leg.end, leg.tip
    heel = (ankle[0], ankle[1] - ANKLE * 0.4, ankle[2] - 0.018)
    patch = brush.rod(heel, (toe[0], toe[1] + 0.021, toe[2]), (0.032, 0.025))
    if patch is not None:
        brush.put(patch, np.where(patch.normal_y > 0.62, np.uint8(sole), np.uint8(upper)))
    shaft = between(ankle, leg.middle, 0.34 if shoes.boots else 0.06)
    brush.limb(shaft, ankle, (0.038 if shoes.boots else 0.032, 0.031), upper)


def draw_arms(brush: Brush, who: Identity, body: Skeleton) -> None:
    """Skin, sleeves, coat and gloves of both arms."""
    palette = brush.palette
    thick = 0.6 + 0.4 * who.girth
    loose = 1 + 12 * who.fit
    one_piece = {"dress": lip.DRESS, "jumpsuit": lip.JUMPSUIT}.get(who.outfit, lip.UPPER)
    cloth = palette.add(one_piece, who.upper, 0.9)
    coat = palette.add(lip.COAT, who.coat, 1.0) if who.coat is not None else 0
    gloves = palette.add(lip.GLOVE, who.gloves) if who.gloves is not None else 0
    for arm, label in zip(body.arms, (lip.RIGHT_ARM, lip.LEFT_ARM), strict=True):
        skin = palette.add(label, who.skin)
        brush.limb(arm.root, arm.middle, (0.031 * thick, 0.026 * thick), skin)
        brush.limb(arm.middle, arm.end, (0.026 * thick, 0.019), skin)
        brush.limb(arm.end, arm.tip, (0.02, 0.017), gloves or skin)
        if gloves:
            brush.limb(between(arm.end, arm.middle, 0.15), arm.tip, (0.023, 0.021), gloves)
        if who.sleeve:
            radii = (0.037 * thick, 0.034 * thick * loose, 0.026 * loose)
            brush.sleeve(arm, who.sleeve * 0.97, radii, cloth, joint=0.54)
        if coat:
            radii = (0.045 * thick, 0.038 * thick * loose + 0.004, 0.028 * loose + 0.006)
            brush.sleeve(arm, 0.98, radii, coat, joint=0.54)
