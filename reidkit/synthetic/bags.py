"""Backpack, shoulder bag and hand bag. LIP has no label for them: they are background."""

from __future__ import annotations

import numpy as np

from reidkit.synthetic import lip
from reidkit.synthetic.brush import Brush, darker
from reidkit.synthetic.pose import Skeleton
from reidkit.synthetic.trunk import outer_thickness, trunk_rings
from reidkit.synthetic.wardrobe import Bag, Identity


def draw_bag(brush: Brush, bag: Bag, who: Identity, body: Skeleton) -> None:
    """The bag, and its straps over the clothes."""
    cloth = brush.palette.add(lip.BACKGROUND, bag.colour, 0.3)
    seam = brush.palette.add(lip.BACKGROUND, darker(bag.colour, 0.62))
    draw = {"backpack": _draw_backpack, "shoulder": _draw_shoulder_bag, "hand": _draw_hand_bag}
    draw[bag.kind](brush, bag, who, body, cloth, seam)


def _draw_backpack(
    brush: Brush, bag: Bag, who: Identity, body: Skeleton, cloth: int, seam: int
) -> None:
    x, y, z = body.chest
    thick, size = outer_thickness(who), bag.size
    back = z - 0.068 * who.girth - thick - 0.045 * size
    patch = brush.box((x, y - 0.035, back), (0.082 * size, 0.115 * size, 0.058 * size))
    if patch is not None:
        pocket = (np.abs(patch.along - 0.15) < 0.06) & (np.abs(patch.across) > 2.2)
        brush.put(patch, np.where(pocket, np.uint8(seam), np.uint8(cloth)))
    straps = brush.tube(trunk_rings(who, body, hem=0.64, thick=thick + 0.006))
    if straps is not None:
        on = (np.abs(np.abs(straps.across) - 0.62) < 0.15) & (straps.along > -0.84)
        brush.put(straps, cloth, on)


def _draw_shoulder_bag(
    brush: Brush, bag: Bag, who: Identity, body: Skeleton, cloth: int, seam: int
) -> None:
    thick, size = outer_thickness(who), bag.size
    aside = bag.side * (0.105 * who.girth * who.hips + thick + 0.03)
    centre = (aside, body.pelvis[1] + 0.005, -0.02)
    patch = brush.box(centre, (0.028 * size, 0.058 * size, 0.078 * size))
    if patch is not None:
        flap = np.abs(patch.along + 0.1) < 0.08
        brush.put(patch, np.where(flap, np.uint8(seam), np.uint8(cloth)))
    # The strap runs from the far shoulder across chest and back.
    sash = brush.tube(trunk_rings(who, body, hem=0.52, thick=thick + 0.006))
    if sash is not None:
        height = 0.69 - 0.15 * bag.side * np.sin(sash.across)
        brush.put(sash, seam, np.abs(sash.along + height) < 0.013)


def _draw_hand_bag(
    brush: Brush, bag: Bag, who: Identity, body: Skeleton, cloth: int, seam: int
) -> None:
    x, y, z = body.arms[(bag.side + 1) // 2].tip
    size = bag.size
    brush.limb((x, y, z), (x, y - 0.035, z), (0.016, 0.022), seam)
    half = (0.03 * size, 0.06 * size, 0.072 * size)
    brush.put(brush.box((x, y - 0.075 * size - 0.01, z), half), cloth)
