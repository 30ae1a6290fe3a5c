"""Walks past a camera: the moments of one person in time order.

The gait advances, the heading drifts, and the detector's box follows a target that jumps now and
then. A data set of images samples moments far apart (`image_moments`); a tracklet consists of
consecutive ones, and other people and occluders move through its frames (`video_moments`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from reidkit.synthetic import tuning
from reidkit.synthetic.camera import Camera
from reidkit.synthetic.moment import Box, Moment, Occluder, Passerby, detected_box
from reidkit.synthetic.pose import ArmAction, Pose
from reidkit.synthetic.wardrobe import sample_identity

FRAME = 0.26
"""Advance of the gait between two video frames, radians: 25 frames a second at average pace."""
APART = 7.3
"""Advance of the gait between two separate images: a little over a second."""


def walk(camera: Camera, rng: np.random.Generator, *, step: float = FRAME) -> Iterator[Moment]:
    """Yields moments of a walk in time order, without end and without other people.

    Args:
        step: advance of the gait between two moments in radians.
    """
    heading = float(rng.choice(camera.headings)) + float(rng.normal(0, 0.22))
    stride = 0.06 if rng.random() < tuning.STANDING_ODDS else float(rng.uniform(0.4, 0.95))
    arms = (_arm_action(rng), _arm_action(rng))
    light = _light(rng)
    resolution = float(rng.uniform(*tuning.RESOLUTION))
    coat_open = float(rng.uniform(0.25, 0.5)) if rng.random() < 0.4 else 0.0
    phase, yaw = float(rng.uniform(0, 2 * np.pi)), heading
    across, depth = float(rng.random()), float(rng.uniform(*camera.standing))
    target = box = detected_box(rng)
    nod, turn = float(rng.normal(0.05, 0.08)), float(rng.normal(0, 0.25))
    lean = float(rng.normal(0.045, 0.025))
    wrinkles = [int(rng.integers(256)), int(rng.integers(256))]
    frames = step / FRAME
    pace = math.sqrt(frames)  # random walks grow with the root of time
    while True:
        pose = Pose(yaw, phase, stride, lean, turn, nod, arms, coat_open)
        streak = abs(math.sin(yaw)) * stride * float(rng.uniform(0, 0.9))
        place = (across % 1.0, depth)
        yield Moment(
            pose, place, box, light, resolution, streak, (wrinkles[0] % 256, wrinkles[1] % 256)
        )
        phase += step * float(rng.uniform(0.9, 1.1))
        yaw += min(0.07 * pace, 0.35) * (heading - yaw) + float(rng.normal(0, 0.035 * pace))
        turn += 0.2 * min(pace, 3) * (float(rng.normal(0, 0.25)) - turn)
        across += 0.0022 * stride * math.sin(yaw) * frames
        depth += 0.0011 * stride * math.cos(yaw) * frames
        depth = min(max(depth, camera.standing[0]), camera.standing[1])
        wrinkles = [at + int(rng.integers(-1, 2) * 3 * pace) for at in wrinkles]
        if rng.random() < min(0.06 * pace, 0.9):
            target = detected_box(rng)
        box = _towards(box, target, min(0.25 * pace, 1.0), rng)


def image_moments(camera: Camera, rng: np.random.Generator) -> Iterator[Moment]:
    """Yields moments far apart, each with its own occluder and passer-by, if any."""
    for moment in walk(camera, rng, step=APART):
        occluder = _occluder(camera, rng) if rng.random() < tuning.OCCLUDER_ODDS else None
        passerby = _passerby(camera, rng) if rng.random() < tuning.PASSERBY_ODDS else None
        yield replace(moment, occluder=occluder, passerby=passerby)


def video_moments(camera: Camera, rng: np.random.Generator) -> Iterator[Moment]:
    """Yields consecutive frames; occluders and passers-by enter and leave at the sides."""
    occluder: Occluder | None = None
    passerby: Passerby | None = None
    other: Iterator[Moment] | None = None
    drift = flow = 0.0
    for moment in walk(camera, rng, step=FRAME):
        if occluder is None and rng.random() < tuning.OCCLUDER_ODDS / 40:
            flow = float(rng.choice([-1, 1])) * float(rng.uniform(0.012, 0.05))
            occluder = replace(_occluder(camera, rng), x=0.5 - math.copysign(1.0, flow))
        if passerby is None and rng.random() < tuning.PASSERBY_ODDS / 40:
            drift = float(rng.choice([-1, 1])) * float(rng.uniform(0.008, 0.05))
            passerby = replace(_passerby(camera, rng), aside=-math.copysign(1.1, drift))
            other = walk(camera, rng)
        if occluder is not None:
            occluder = replace(occluder, x=occluder.x + flow)
            occluder = occluder if abs(occluder.x - 0.5) < 1.05 else None
        if passerby is not None and other is not None:
            passerby = replace(passerby, aside=passerby.aside + drift, pose=next(other).pose)
            passerby = passerby if abs(passerby.aside) < 1.15 else None
        yield replace(moment, occluder=occluder, passerby=passerby)


def _light(rng: np.random.Generator) -> tuple[float, float, float]:
    """Light at a time of day: gain per colour channel."""
    r, g, b = np.exp(rng.normal(0, tuning.LIGHT)) * np.exp(rng.normal(0, 0.03, 3))
    return float(r), float(g), float(b)


def _towards(box: Box, target: Box, share: float, rng: np.random.Generator) -> Box:
    """The box one step closer to its target, with jitter."""

    def step(value: float, goal: float) -> float:
        return value + share * (goal - value) + float(rng.normal(0, 0.004))

    return Box(
        step(box.shift_x, target.shift_x),
        step(box.shift_y, target.shift_y),
        step(box.scale, target.scale),
    )


def _occluder(camera: Camera, rng: np.random.Generator) -> Occluder:
    side = float(rng.choice([-1, 1]))
    return Occluder(
        index=int(rng.integers(len(camera.clutter))),
        x=0.5 + side * float(rng.uniform(0.05, 0.5)),
        below=float(rng.uniform(0.0, 0.12)),
        size=float(rng.uniform(0.85, 1.25)),
        mirror=bool(rng.random() < 0.5),
    )


def _passerby(camera: Camera, rng: np.random.Generator) -> Passerby:
    front = rng.random() < 0.3
    size = float(rng.uniform(1.02, 1.2) if front else rng.uniform(0.72, 0.98))
    aside = float(rng.choice([-1, 1])) * float(rng.uniform(0.35 if front else 0.15, 0.65))
    return Passerby(sample_identity(rng), next(walk(camera, rng)).pose, aside, size)


def _arm_action(rng: np.random.Generator) -> ArmAction:
    actions: tuple[ArmAction, ...] = ("swing", "carry", "pocket", "phone", "strap")
    return actions[int(rng.choice(5, p=(0.66, 0.12, 0.09, 0.07, 0.06)))]
