"""Body poses: joints from the phase of the gait, and their projection.

Body frame: x to the person's left, y up, z forward; unit: the person's height; ground at y = 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Point = tuple[float, float, float]

ArmAction = Literal["swing", "phone", "pocket", "carry", "strap"]


@dataclass(frozen=True)
class Pose:
    """A pose at one moment of a walk.

    Attributes:
        yaw: facing direction in radians; 0 towards the camera, pi/2 to the right of the image.
        phase: of the gait in radians; a full cycle is two steps.
        stride: from 0 (standing) to 1 (long steps).
        lean: forward lean of the trunk in radians.
        head_turn, head_nod: yaw and pitch (down) of the head relative to the trunk in radians.
        arms: actions of the (right, left) arm.
        coat_open: half angle of an open coat's front in radians; 0 is closed.
    """

    yaw: float
    phase: float
    stride: float = 0.8
    lean: float = 0.03
    head_turn: float = 0.0
    head_nod: float = 0.0
    arms: tuple[ArmAction, ArmAction] = ("swing", "swing")
    coat_open: float = 0.0


@dataclass(frozen=True)
class Limb:
    """Joints of an arm (shoulder, elbow, wrist) or a leg (hip, knee, ankle), and its tip."""

    root: Point
    middle: Point
    end: Point
    tip: Point


@dataclass(frozen=True)
class Skeleton:
    """Joints in the body frame. Pairs are (right, left)."""

    arms: tuple[Limb, Limb]
    legs: tuple[Limb, Limb]
    pelvis: Point
    chest: Point
    neck: Point
    head: Point
    lift: float
    """Height of the hips above those of a person standing straight (negative: below)."""


# Lengths in body heights.
HIP, KNEE, ANKLE = 0.52, 0.28, 0.042
THIGH, SHIN = HIP - KNEE, KNEE - ANKLE
SHOULDER, UPPER_ARM, FORE_ARM, HAND = 0.79, 0.172, 0.145, 0.05
NECK, HEAD = 0.865, 0.932
FOOT = 0.105


def skeleton(pose: Pose, *, shoulders: float, hips: float, girth: float) -> Skeleton:
    """Joints of a body in a pose.

    The thigh's angle is a sine of the phase, the knee bends while its leg swings forward, arms
    swing opposite to the legs, and the shoulders rotate opposite to the hips.
    """
    legs = [_leg(pose, side, hips) for side in (-1, 1)]
    lowest = min(min(leg.tip[1], leg.end[1] - ANKLE) for leg in legs)
    legs = [Limb(*(_up(point, -lowest) for point in _points(leg))) for leg in legs]
    twist = -0.16 * pose.stride * math.sin(pose.phase)

    def trunk(x: float, y: float, z: float = 0.0) -> Point:
        """A point of the trunk after leaning and twisting."""
        high = max(0.0, y - HIP)
        turned_x = x * math.cos(twist) + z * math.sin(twist)
        turned_z = -x * math.sin(twist) + z * math.cos(twist)
        return (
            turned_x,
            HIP + high * math.cos(pose.lean) - lowest if high else y - lowest,
            turned_z + high * math.sin(pose.lean),
        )

    arms = []
    for side, action in zip((-1, 1), pose.arms, strict=True):
        shoulder = trunk(side * 0.106 * shoulders * (0.85 + 0.15 * girth), SHOULDER)
        arms.append(_arm(shoulder, pose, side, action, girth))
    nod = pose.head_nod + pose.lean
    neck = trunk(0, NECK)
    head = (
        neck[0],
        neck[1] + (HEAD - NECK) * math.cos(nod),
        neck[2] + 0.012 + 0.07 * math.sin(nod),
    )
    return Skeleton(
        (arms[0], arms[1]), (legs[0], legs[1]), trunk(0, HIP), trunk(0, 0.74), neck, head, -lowest
    )


def _leg(pose: Pose, side: int, hips: float) -> Limb:
    phase = pose.phase + (math.pi if side > 0 else 0.0)
    thigh = pose.stride * 0.46 * math.sin(phase) + 0.02
    flex = 0.05 + pose.stride * 0.95 * max(0.0, math.cos(phase + 0.35)) ** 1.5
    shin = thigh - flex
    apart = side * 0.047 * hips
    hip = (apart, HIP, 0.0)
    knee = (apart * 1.05, HIP - THIGH * math.cos(thigh), THIGH * math.sin(thigh))
    ankle = (apart * 1.05, knee[1] - SHIN * math.cos(shin), knee[2] + SHIN * math.sin(shin))
    pitch = min(0.0, shin * 0.85 + 0.12) + max(0.0, (shin - 0.12) * 0.9)
    toe = (
        apart * 1.3,
        ankle[1] - ANKLE * math.cos(pitch) + FOOT * math.sin(pitch),
        ankle[2] + FOOT * math.cos(pitch) * 0.72,
    )
    return Limb(hip, knee, ankle, toe)


def _arm(shoulder: Point, pose: Pose, side: int, action: ArmAction, girth: float) -> Limb:
    phase = pose.phase + (0.0 if side > 0 else math.pi)
    swing = pose.stride * 0.5 * math.sin(phase)
    out = 0.09 + 0.1 * (girth - 0.9)
    if action == "phone":
        upper, flex, inward = 0.35, 2.15, 0.35
    elif action == "pocket":
        upper, flex, inward, out = -0.22, 0.75, 0.1, out + 0.14
    elif action == "carry":
        upper, flex, inward = swing * 0.35, 0.12, 0.0
    elif action == "strap":
        upper, flex, inward, out = 0.1, 2.3, 0.25, out + 0.08
    else:
        upper, flex, inward = (
            swing - 0.06,
            0.2 + pose.stride * 0.3 * (0.6 + 0.4 * math.sin(phase)),
            0.05,
        )
    elbow = (
        shoulder[0] + side * UPPER_ARM * math.sin(out),
        shoulder[1] - UPPER_ARM * math.cos(upper) * math.cos(out),
        shoulder[2] + UPPER_ARM * math.sin(upper),
    )
    fore = upper + flex
    along = (
        -side * math.sin(inward),
        -math.cos(fore) * math.cos(inward),
        math.sin(fore) * math.cos(inward),
    )
    wrist = _step(elbow, along, FORE_ARM)
    return Limb(shoulder, elbow, wrist, _step(wrist, along, HAND))


def _step(start: Point, direction: Point, length: float) -> Point:
    return (
        start[0] + direction[0] * length,
        start[1] + direction[1] * length,
        start[2] + direction[2] * length,
    )


def _up(point: Point, lift: float) -> Point:
    return point[0], point[1] + lift, point[2]


def _points(limb: Limb) -> tuple[Point, Point, Point, Point]:
    return limb.root, limb.middle, limb.end, limb.tip


@dataclass(frozen=True)
class View:
    """Projection from the body frame to the canvas.

    Attributes:
        yaw, tilt: facing direction of the person, elevation of the camera, in radians.
        scale: canvas pixels per body height.
        foot_x, foot_y: position of the body frame's origin on the canvas.
        perspective: magnification of nearer parts, per body height.
    """

    yaw: float
    tilt: float
    scale: float
    foot_x: float
    foot_y: float
    perspective: float = 0.0

    def project(self, point: Point) -> tuple[Point, float]:
        """((x, y, z) on the canvas, canvas pixels per body height there)."""
        x, y, z = point
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        right, near = x * cos + z * sin, -x * sin + z * cos
        cos, sin = math.cos(self.tilt), math.sin(self.tilt)
        up, depth = y * cos - near * sin, near * cos + y * sin
        grow = self.scale * (1 + self.perspective * depth)
        return (self.foot_x + right * grow, self.foot_y - up * grow, depth * self.scale), grow
