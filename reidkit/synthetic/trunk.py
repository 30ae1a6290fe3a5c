"""Neck and trunk: shirt, dress, skirt, trousers' seat, coat and scarf."""

from __future__ import annotations

import math

import numpy as np

from reidkit.synthetic import lip
from reidkit.synthetic.brush import Brush, Ring, darker
from reidkit.synthetic.pose import ANKLE, HIP, NECK, Pose, Skeleton
from reidkit.synthetic.wardrobe import Fabric, Identity


def outer_thickness(who: Identity) -> float:
    """Of the cloth on the trunk, body heights."""
    return who.fit + (0.018 if who.coat is not None else 0.005)


def trunk_rings(
    who: Identity, body: Skeleton, *, hem: float, thick: float, reach: float = 0.0
) -> list[Ring]:
    """The trunk's outline from the neck down to `hem` (body heights), `thick` of cloth around.

    `reach` is how far the thighs push the cloth out, per body height below the hips.
    """
    girth = who.girth
    broad = who.shoulders * (0.85 + 0.15 * girth)
    table = [
        (0.853, 0.036, 0.036),
        (0.838, 0.06 * broad, 0.042),
        (0.822, 0.09 * broad, 0.05),
        (0.795, 0.113 * broad, 0.058 * girth),
        (0.74, 0.108 * broad * (0.8 + 0.2 * girth), 0.068 * girth),
        (0.66, 0.09 * girth, 0.062 * girth),
        (0.61, 0.085 * girth, 0.06 * girth),
        (0.54, 0.094 * girth * who.hips, 0.068 * girth),
        (0.49, 0.095 * girth * who.hips, 0.068 * girth),
        (0.3, 0.1 * girth * who.hips, 0.075 * girth),
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


def _skirt_rings(who: Identity, body: Skeleton, pose: Pose, *, top: float) -> list[Ring]:
    """Waist to hem; wide enough for the step it hides."""
    hem = HIP - (HIP - ANKLE) * who.hem
    spread = 0.105 + 0.05 * who.hem + 0.02 * pose.stride
    reach = 0.095 + (0.05 + 0.11 * pose.stride) * abs(math.sin(pose.phase)) * who.hem
    x, y, z = body.pelvis
    rows = [
        (top, 0.085, 0.06),
        (0.53, 0.1 * who.hips, 0.074),
        (0.47, 0.104 * who.hips, 0.078),
        (hem, spread, reach),
    ]
    return [
        ((x, y + row - HIP, z), half_width * who.girth, half_depth * who.girth)
        for row, half_width, half_depth in rows
        if row <= top
    ]


def draw_trunk(brush: Brush, who: Identity, pose: Pose, body: Skeleton) -> None:
    """Everything between neck and legs."""
    neck = body.neck
    skin = brush.palette.add(lip.FACE, who.skin)
    brush.limb(neck, (neck[0], neck[1] - 0.05, neck[2] - 0.01), (0.03, 0.036), skin)
    _draw_lower(brush, who, pose, body)
    _draw_upper(brush, who, pose, body, skin)
    if who.coat is not None:
        _draw_coat(brush, who.coat, who, pose, body)
    if who.scarf is not None:
        scarf = brush.palette.add(lip.SCARF, who.scarf, 0.8)
        round_neck = brush.ball((neck[0], neck[1] - 0.022, neck[2]), (0.062, 0.03, 0.062))
        brush.put(round_neck, scarf)
        x, y, z = body.chest
        depth = 0.065 * who.girth + outer_thickness(who) * 0.7
        brush.limb(
            (x + 0.025, y + 0.09, z + depth),
            (x + 0.035, y - 0.07, z + depth + 0.007),
            (0.022, 0.026),
            scarf,
            flat_end=True,
        )


def _draw_lower(brush: Brush, who: Identity, pose: Pose, body: Skeleton) -> None:
    if who.outfit == "skirt":
        skirt = brush.palette.add(lip.SKIRT, who.lower, 1.0)
        brush.put(brush.tube(_skirt_rings(who, body, pose, top=0.62)), skirt)
    elif who.outfit != "dress":
        label = lip.JUMPSUIT if who.outfit == "jumpsuit" else lip.PANTS
        seat = brush.palette.add(label, who.lower, 0.7)
        brush.put(brush.tube(trunk_rings(who, body, hem=0.462, thick=0.002)[4:]), seat)


def _draw_upper(brush: Brush, who: Identity, pose: Pose, body: Skeleton, skin: int) -> None:
    label = {"dress": lip.DRESS, "jumpsuit": lip.JUMPSUIT}.get(who.outfit, lip.UPPER)
    cloth = brush.palette.add(label, who.upper, 0.8)
    if who.outfit == "dress":
        rings = trunk_rings(who, body, hem=0.56, thick=0.004)
        rings += _skirt_rings(who, body, pose, top=0.55)
    else:
        hem = {"jumpsuit": 0.47, "skirt": 0.585}.get(who.outfit, who.shirt_hem)
        rings = trunk_rings(who, body, hem=hem, thick=0.005 + who.fit)
    patch = brush.tube(rings)
    if patch is None:
        return
    # A neckline: skin in a small V under the throat.
    wide = 0.35 + 7 * who.neckline
    depth = 0.83 - who.neckline * (1 - np.abs(patch.across) / wide)
    low = (np.abs(patch.across) < wide) & (patch.along < -depth)
    material = np.where(low, np.uint8(skin), np.uint8(cloth))
    if who.buttons:
        seam = brush.palette.add(label, darker(who.upper.colour, 0.72))
        material[(np.abs(patch.across) < 0.05) & ~low] = seam
    brush.put(patch, material)


def _draw_coat(brush: Brush, fabric: Fabric, who: Identity, pose: Pose, body: Skeleton) -> None:
    coat = brush.palette.add(lip.COAT, fabric, 1.0)
    seam = brush.palette.add(lip.COAT, darker(fabric.colour, 0.6))
    reach = 0.15 + 0.5 * pose.stride * abs(math.sin(pose.phase))
    rings = trunk_rings(who, body, hem=who.coat_hem, thick=outer_thickness(who), reach=reach)
    patch = brush.tube(rings)
    if patch is None:
        return
    angle = np.abs(patch.across)
    # Open from the collar down in a V, or all the way.
    gap = np.maximum(pose.coat_open, (-patch.along - 0.77) * 5)
    edge = (angle - gap < 0.09) & (patch.along > -0.84)
    seen = angle > gap
    if pose.coat_open:  # of the far front panel only a broken line would show
        far = patch.normal_x * math.copysign(1.0, math.sin(pose.yaw)) > 0.88
        seen &= ~(far & (abs(math.sin(pose.yaw)) > 0.3))
    brush.put(patch, np.where(edge, np.uint8(seam), np.uint8(coat)), seen)
