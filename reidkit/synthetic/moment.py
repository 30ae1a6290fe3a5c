"""What happens before a camera: walks, and the single moments that images show.

`walk` yields one person's moments before one camera in time order: the gait goes on, the heading
drifts, the detector's box wanders. A data set of single images takes moments far apart; a tracklet
takes them one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from reidkit.synthetic import tuning
from reidkit.synthetic.camera import Camera
from reidkit.synthetic.pose import ArmAction, Pose
from reidkit.synthetic.wardrobe import Identity, sample_identity


@dataclass(frozen=True)
class Box:
    """The detector's box. `shift_x`, `shift_y`: the person's centre from the box's, in box heights;
    `scale`: box height over person's height (below 1 cuts off)."""

    shift_x: float = 0.0
    shift_y: float = 0.0
    scale: float = 1.08


@dataclass(frozen=True)
class Occluder:
    """A thing in front: which of the camera's clutter, its centre in image widths, how far its foot
    is below the person's in image heights, and its size."""

    index: int
    x: float
    below: float
    size: float
    mirror: bool = False


@dataclass(frozen=True)
class Passer:
    """Somebody else in the picture, `aside` in image widths from the person; `size` above 1 walks
    in front."""

    identity: Identity
    pose: Pose
    aside: float
    size: float


@dataclass(frozen=True)
class Moment:
    """All that changes from one image to the next.

    Attributes:
        place: where in the camera's scene, (across, depth), each 0..1.
        light: gain per channel of this hour.
        resolution: sensor pixels per image pixel.
        wrinkles: which part of the wrinkle texture lies on the clothes.
        empty: nobody stands here: the detector was wrong.
    """

    pose: Pose
    place: tuple[float, float] = (0.5, 0.5)
    box: Box = Box()
    light: tuple[float, float, float] = (1.0, 1.0, 1.0)
    resolution: float = 1.0
    streak: float = 0.0
    wrinkles: tuple[int, int] = (0, 0)
    occluder: Occluder | None = None
    passer: Passer | None = None
    empty: bool = False


def walk(camera: Camera, rng: np.random.Generator, *, step: float = 0.26) -> Iterator[Moment]:
    """One person's moments before one camera, without end, in time order.

    Args:
        step: of the gait between two moments, radians (0.26 is 25 images a second at an ordinary
            pace; single images take several turns).
    """
    heading = float(rng.choice(camera.headings)) + float(rng.normal(0, 0.22))
    stands = rng.random() < 0.1
    stride = 0.06 if stands else float(rng.uniform(0.5, 1.0))
    arms = (_arm_action(rng), _arm_action(rng))
    hour = np.exp(rng.normal(0, tuning.LIGHT)) * np.exp(rng.normal(0, 0.03, 3))
    light = (float(hour[0]), float(hour[1]), float(hour[2]))
    resolution = float(rng.uniform(*tuning.RESOLUTION))
    coat_open = float(rng.uniform(0.25, 0.5)) if rng.random() < 0.4 else 0.0
    phase, yaw = float(rng.uniform(0, 2 * np.pi)), heading
    across, depth = float(rng.random()), float(rng.uniform(*camera.standing))
    box = sample_box(rng)
    aim = box
    nod, turn = float(rng.normal(0.05, 0.08)), float(rng.normal(0, 0.25))
    lean = float(rng.normal(0.045, 0.025))
    speed = 0.0022 * stride
    while True:
        pose = Pose(yaw, phase, stride, lean, turn, nod, arms, coat_open)
        yield Moment(
            pose,
            (across % 1.0, depth),
            box,
            light,
            resolution,
            abs(math.sin(yaw)) * stride * float(rng.uniform(0, 0.9)),
            (int(rng.integers(256)), int(rng.integers(256))),
        )
        phase += step * float(rng.uniform(0.9, 1.1))
        pace = math.sqrt(step / 0.26)
        yaw += 0.35 * (heading - yaw) * min(pace * 0.2, 1) + float(rng.normal(0, 0.035 * pace))
        turn += 0.2 * min(pace, 3) * (float(rng.normal(0, 0.25)) - turn)
        across += speed * math.sin(yaw) * step / 0.26
        depth += 0.5 * speed * math.cos(yaw) * step / 0.26
        depth = min(max(depth, camera.standing[0]), camera.standing[1])
        # The box follows its own aim, which jumps now and then.
        if rng.random() < min(0.06 * pace, 0.9):
            aim = sample_box(rng)
        share = min(0.25 * pace, 1.0)
        box = Box(
            *(
                a + share * (b - a) + float(rng.normal(0, 0.004))
                for a, b in (
                    (box.shift_x, aim.shift_x),
                    (box.shift_y, aim.shift_y),
                    (box.scale, aim.scale),
                )
            )
        )


def with_company(moment: Moment, camera: Camera, rng: np.random.Generator) -> Moment:
    """The moment with, now and then, something or somebody else in the picture."""
    occluder = passer = None
    if rng.random() < tuning.OCCLUDER_ODDS:
        side = float(rng.choice([-1, 1]))
        occluder = Occluder(
            int(rng.integers(len(camera.clutter))),
            0.5 + side * float(rng.uniform(0.05, 0.5)),
            float(rng.uniform(0.0, 0.12)),
            float(rng.uniform(0.85, 1.25)),
            bool(rng.random() < 0.5),
        )
    if rng.random() < tuning.PASSER_ODDS:
        front = rng.random() < 0.3
        size = float(rng.uniform(1.02, 1.2) if front else rng.uniform(0.6, 0.98))
        aside = float(rng.choice([-1, 1])) * float(rng.uniform(0.35 if front else 0.15, 0.65))
        passer = Passer(sample_identity(rng), sample_pose(camera, rng), aside, size)
    return replace(moment, occluder=occluder, passer=passer)


def sample_pose(camera: Camera, rng: np.random.Generator) -> Pose:
    """A single pose of somebody on their way before this camera."""
    return next(walk(camera, rng)).pose


def sample_box(rng: np.random.Generator) -> Box:
    """A detector's box: mostly good, sometimes shifted, cut off or far too large."""
    scale = float(rng.triangular(tuning.BOX_SCALE[0], 1.08, tuning.BOX_SCALE[1]))
    shift_x, shift_y = (float(v) for v in rng.normal(0, tuning.BOX_SHIFT, 2) * (0.7, 0.6))
    if rng.random() < tuning.BAD_BOX_ODDS:
        kind = rng.random()
        if kind < 0.4:
            scale = float(rng.uniform(0.72, 0.92))  # cut off
            shift_y = float(rng.choice([-1, 1])) * float(rng.uniform(0.02, 0.14))
        elif kind < 0.7:
            scale = float(rng.uniform(1.3, 1.55))  # far too large
        else:
            shift_x = float(rng.choice([-1, 1])) * float(rng.uniform(0.08, 0.16))
    return Box(shift_x, shift_y, scale)


def _arm_action(rng: np.random.Generator) -> ArmAction:
    actions: tuple[ArmAction, ...] = ("swing", "carry", "pocket", "phone", "strap")
    return actions[int(rng.choice(5, p=(0.66, 0.12, 0.09, 0.07, 0.06)))]


def close_box(rng: np.random.Generator) -> Box:
    """A box drawn by hand: tight and centred."""
    shift_x, shift_y = (float(v) for v in rng.normal(0, 0.008, 2))
    return Box(shift_x, shift_y, float(rng.uniform(1.03, 1.14)))


def fragment_box(rng: np.random.Generator) -> Box:
    """A bad box: a part of the person, or mostly what is around."""
    if rng.random() < 0.7:
        scale = float(rng.uniform(0.3, 0.62))
        reach = 0.5 / scale  # of the person, in box heights
        shift_y = float(rng.uniform(-0.75, 0.75)) * reach
        return Box(float(rng.normal(0, 0.14)), shift_y, scale)
    side = float(rng.choice([-1, 1]))
    return Box(
        side * float(rng.uniform(0.2, 0.34)),
        float(rng.normal(0, 0.1)),
        float(rng.uniform(1.1, 1.7)),
    )
