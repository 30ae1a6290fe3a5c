"""Neck and trunk: shirt, dress, skirt, seat of the trousers, coat, scarf; and bags."""

from __future__ import annotations

import math

import numpy as np

from reidkit.synthetic.brush import Brush, Lip, Ring, darker
from reidkit.synthetic.pose import ANKLE, HIP, NECK, Pose, Skeleton
from reidkit.synthetic.wardrobe import Bag, Fabric, Identity


def outer_thickness(person: Identity) -> float:
    """Thickness of the cloth on the trunk, in body heights."""
    return person.fit + (0.018 if person.coat is not None else 0.005)


def trunk_rings(
    person: Identity, body: Skeleton, *, hem: float, thick: float, reach: float = 0.0
) -> list[Ring]:
    """Outline of the trunk from the neck to `hem`, with cloth of thickness `thick` (body heights).

    Args:
        reach: how far the thighs push the cloth forward, per body height below the hips.
    """
    girth = person.girth
    broad = person.shoulders * (0.85 + 0.15 * girth)
    table = [
        (0.853, 0.036, 0.036),
        (0.838, 0.06 * broad, 0.042),
        (0.822, 0.09 * broad, 0.05),
        (0.795, 0.113 * broad, 0.058 * girth),
        (0.74, 0.108 * broad * (0.8 + 0.2 * girth), 0.068 * girth),
        (0.66, 0.09 * girth, 0.062 * girth),
        (0.61, 0.085 * girth, 0.06 * girth),
        (0.54, 0.094 * girth * person.hips, 0.068 * girth),
        (0.49, 0.095 * girth * person.hips, 0.068 * girth),
        (0.3, 0.1 * girth * person.hips, 0.075 * girth),
    ]
    end = next((row for row in table if row[0] <= hem), table[-1])
    rows = [row for row in table if row[0] > hem] + [(hem, end[1], end[2])]
    pelvis, neck = body.pelvis, body.neck
    lean = [(neck[axis] - pelvis[axis]) / (NECK - HIP) for axis in range(3)]
    rings = []
    for height, half_width, half_depth in rows:
        above, up = max(height - HIP, 0.0), height - HIP
        centre = (
            pelvis[0] + above * lean[0],
            pelvis[1] + (up * lean[1] if up > 0 else up),
            pelvis[2] + above * lean[2],
        )
        slack = thick if height < 0.8 else min(thick, 0.012)
        pushed = half_depth + slack + reach * max(HIP + 0.02 - height, 0.0)
        rings.append((centre, half_width + slack, pushed))
    return rings


def _skirt_rings(person: Identity, body: Skeleton, pose: Pose, *, top: float) -> list[Ring]:
    """Outline of a skirt from waist to hem, wide enough for the stride under it."""
    hem = HIP - (HIP - ANKLE) * person.hem
    spread = 0.105 + 0.05 * person.hem + 0.02 * pose.stride
    reach = 0.095 + (0.05 + 0.11 * pose.stride) * abs(math.sin(pose.phase)) * person.hem
    x, y, z = body.pelvis
    rows = [
        (top, 0.085, 0.06),
        (0.53, 0.1 * person.hips, 0.074),
        (0.47, 0.104 * person.hips, 0.078),
        (hem, spread, reach),
    ]
    return [
        ((x, y + row - HIP, z), half_width * person.girth, half_depth * person.girth)
        for row, half_width, half_depth in rows
        if row <= top
    ]


def draw_trunk(brush: Brush, person: Identity, pose: Pose, body: Skeleton) -> None:
    """Draws everything between neck and legs."""
    neck = body.neck
    skin = brush.palette.add(Lip.FACE, person.skin)
    brush.limb(neck, (neck[0], neck[1] - 0.05, neck[2] - 0.01), (0.03, 0.036), skin)
    _draw_lower(brush, person, pose, body)
    _draw_upper(brush, person, pose, body, skin)
    if person.coat is not None:
        _draw_coat(brush, person.coat, person, pose, body)
    if person.scarf is not None:
        scarf = brush.palette.add(Lip.SCARF, person.scarf, 0.8)
        round_neck = brush.ball((neck[0], neck[1] - 0.022, neck[2]), (0.062, 0.03, 0.062))
        brush.put(round_neck, scarf)
        x, y, z = body.chest
        depth = 0.065 * person.girth + outer_thickness(person) * 0.7
        brush.limb(
            (x + 0.025, y + 0.09, z + depth),
            (x + 0.035, y - 0.07, z + depth + 0.007),
            (0.022, 0.026),
            scarf,
            flat_end=True,
        )


def _draw_lower(brush: Brush, person: Identity, pose: Pose, body: Skeleton) -> None:
    if person.outfit == "skirt":
        skirt = brush.palette.add(Lip.SKIRT, person.lower, 1.0)
        brush.put(brush.tube(_skirt_rings(person, body, pose, top=0.62)), skirt)
    elif person.outfit != "dress":
        label = Lip.JUMPSUIT if person.outfit == "jumpsuit" else Lip.PANTS
        seat = brush.palette.add(label, person.lower, 0.7)
        brush.put(brush.tube(trunk_rings(person, body, hem=0.462, thick=0.002)[4:]), seat)


def _draw_upper(brush: Brush, person: Identity, pose: Pose, body: Skeleton, skin: int) -> None:
    label = {"dress": Lip.DRESS, "jumpsuit": Lip.JUMPSUIT}.get(person.outfit, Lip.UPPER)
    cloth = brush.palette.add(label, person.upper, 0.8)
    if person.outfit == "dress":
        rings = trunk_rings(person, body, hem=0.56, thick=0.004)
        rings += _skirt_rings(person, body, pose, top=0.55)
    else:
        hem = {"jumpsuit": 0.47, "skirt": 0.585}.get(person.outfit, person.shirt_hem)
        rings = trunk_rings(person, body, hem=hem, thick=0.005 + person.fit)
    patch = brush.tube(rings)
    if patch is None:
        return
    # The neckline is a small V of skin under the throat.
    wide = 0.35 + 7 * person.neckline
    depth = 0.83 - person.neckline * (1 - np.abs(patch.across) / wide)
    low = (np.abs(patch.across) < wide) & (patch.along < -depth)
    material = np.where(low, np.uint8(skin), np.uint8(cloth))
    if person.buttons:
        seam = brush.palette.add(label, darker(person.upper.colour, 0.72))
        material[(np.abs(patch.across) < 0.05) & ~low] = seam
    brush.put(patch, material)


def _draw_coat(brush: Brush, fabric: Fabric, person: Identity, pose: Pose, body: Skeleton) -> None:
    coat = brush.palette.add(Lip.COAT, fabric, 1.0)
    seam = brush.palette.add(Lip.COAT, darker(fabric.colour, 0.6))
    reach = 0.15 + 0.5 * pose.stride * abs(math.sin(pose.phase))
    rings = trunk_rings(
        person, body, hem=person.coat_hem, thick=outer_thickness(person), reach=reach
    )
    patch = brush.tube(rings)
    if patch is None:
        return
    angle = np.abs(patch.across)
    # Open in a V below the collar, or over the whole length.
    gap = np.maximum(pose.coat_open, (-patch.along - 0.77) * 5)
    edge = (angle - gap < 0.09) & (patch.along > -0.84)
    seen = angle > gap
    if pose.coat_open:  # only fragments of the far front panel would be visible
        far = patch.normal_x * math.copysign(1.0, math.sin(pose.yaw)) > 0.88
        seen &= ~(far & (abs(math.sin(pose.yaw)) > 0.3))
    brush.put(patch, np.where(edge, np.uint8(seam), np.uint8(coat)), seen)


def draw_bag(brush: Brush, bag: Bag, person: Identity, body: Skeleton) -> None:
    """Draws a bag and its straps. LIP has no label for bags: they are background."""
    cloth = brush.palette.add(Lip.BACKGROUND, bag.colour, 0.3)
    seam = brush.palette.add(Lip.BACKGROUND, darker(bag.colour, 0.62))
    draw = {"backpack": _draw_backpack, "shoulder": _draw_shoulder_bag, "hand": _draw_hand_bag}
    draw[bag.kind](brush, bag, person, body, cloth, seam)


def _draw_backpack(
    brush: Brush, bag: Bag, person: Identity, body: Skeleton, cloth: int, seam: int
) -> None:
    x, y, z = body.chest
    thick, size = outer_thickness(person), bag.size
    back = z - 0.068 * person.girth - thick - 0.045 * size
    patch = brush.box((x, y - 0.035, back), (0.082 * size, 0.115 * size, 0.058 * size))
    if patch is not None:
        pocket = (np.abs(patch.along - 0.15) < 0.06) & (np.abs(patch.across) > 2.2)
        brush.put(patch, np.where(pocket, np.uint8(seam), np.uint8(cloth)))
    straps = brush.tube(trunk_rings(person, body, hem=0.64, thick=thick + 0.006))
    if straps is not None:
        on = (np.abs(np.abs(straps.across) - 0.62) < 0.15) & (straps.along > -0.84)
        brush.put(straps, cloth, on)


def _draw_shoulder_bag(
    brush: Brush, bag: Bag, person: Identity, body: Skeleton, cloth: int, seam: int
) -> None:
    thick, size = outer_thickness(person), bag.size
    aside = bag.side * (0.105 * person.girth * person.hips + thick + 0.03)
    centre = (aside, body.pelvis[1] + 0.005, -0.02)
    patch = brush.box(centre, (0.028 * size, 0.058 * size, 0.078 * size))
    if patch is not None:
        flap = np.abs(patch.along + 0.1) < 0.08
        brush.put(patch, np.where(flap, np.uint8(seam), np.uint8(cloth)))
    # The strap runs from the opposite shoulder across chest and back.
    sash = brush.tube(trunk_rings(person, body, hem=0.52, thick=thick + 0.006))
    if sash is not None:
        height = 0.69 - 0.15 * bag.side * np.sin(sash.across)
        brush.put(sash, seam, np.abs(sash.along + height) < 0.013)


def _draw_hand_bag(
    brush: Brush, bag: Bag, person: Identity, body: Skeleton, cloth: int, seam: int
) -> None:
    x, y, z = body.arms[(bag.side + 1) // 2].tip
    size = bag.size
    brush.limb((x, y, z), (x, y - 0.035, z), (0.016, 0.022), seam)
    half = (0.03 * size, 0.06 * size, 0.072 * size)
    brush.put(brush.box((x, y - 0.075 * size - 0.01, z), half), cloth)
