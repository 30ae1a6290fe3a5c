"""The moment an image shows (everything but identity and camera), and sampled bounding boxes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reidkit.synthetic import tuning
from reidkit.synthetic.pose import Pose
from reidkit.synthetic.wardrobe import Identity


@dataclass(frozen=True)
class Box:
    """The bounding box.

    Attributes:
        shift_x, shift_y: offset of the person's centre from the box's, in box heights.
        scale: height of the box relative to the person; below 1 cuts parts off.
    """

    shift_x: float = 0.0
    shift_y: float = 0.0
    scale: float = 1.08


@dataclass(frozen=True)
class Occluder:
    """An object in front of the person.

    Attributes:
        index: of the camera's clutter.
        x: of its centre, in image widths.
        below: distance of its base below the person's feet, in image heights.
        size: scale factor.
    """

    index: int
    x: float
    below: float
    size: float
    mirror: bool = False


@dataclass(frozen=True)
class Passerby:
    """Another person in the image.

    Attributes:
        aside: horizontal distance from the person in image widths.
        size: relative to the person; above 1 walks in front, else behind.
    """

    identity: Identity
    pose: Pose
    aside: float
    size: float


@dataclass(frozen=True)
class Moment:
    """All that changes from one image to the next.

    Attributes:
        place: (across, depth) in the camera's scene, each in [0, 1].
        light: gain per colour channel at this time of day.
        resolution: sensor pixels per image pixel.
        streak: motion blur in pixels.
        wrinkles: offset (rows, columns) into the wrinkle texture.
        empty: without the person: a false detection.
    """

    pose: Pose
    place: tuple[float, float] = (0.5, 0.5)
    box: Box = Box()
    light: tuple[float, float, float] = (1.0, 1.0, 1.0)
    resolution: float = 1.0
    streak: float = 0.0
    wrinkles: tuple[int, int] = (0, 0)
    occluder: Occluder | None = None
    passerby: Passerby | None = None
    empty: bool = False


def detected_box(rng: np.random.Generator) -> Box:
    """A detector's box: mostly good, sometimes shifted, too small or far too large."""
    scale = float(rng.triangular(tuning.BOX_SCALE[0], 1.06, tuning.BOX_SCALE[1]))
    shift_x, shift_y = (float(v) for v in rng.normal(0, tuning.BOX_SHIFT, 2) * (0.7, 0.6))
    if rng.random() < tuning.BAD_BOX_ODDS:
        kind = rng.random()
        if kind < 0.4:  # cuts parts off
            scale = float(rng.uniform(0.72, 0.92))
            shift_y = float(rng.choice([-1, 1])) * float(rng.uniform(0.02, 0.14))
        elif kind < 0.7:  # far too large
            scale = float(rng.uniform(1.3, 1.55))
        else:
            shift_x = float(rng.choice([-1, 1])) * float(rng.uniform(0.08, 0.16))
    return Box(shift_x, shift_y, scale)


def annotated_box(rng: np.random.Generator) -> Box:
    """A manually annotated box: tight and centred."""
    shift_x, shift_y = (float(v) for v in rng.normal(0, 0.008, 2))
    return Box(shift_x, shift_y, float(rng.uniform(1.03, 1.14)))


def bad_box(rng: np.random.Generator) -> Box:
    """A junk box: a part of the person, or mostly background."""
    if rng.random() < 0.7:
        scale = float(rng.uniform(0.3, 0.62))
        reach = 0.5 / scale  # of the person, in box heights
        return Box(float(rng.normal(0, 0.14)), float(rng.uniform(-0.75, 0.75)) * reach, scale)
    side = float(rng.choice([-1, 1])) * float(rng.uniform(0.2, 0.34))
    return Box(side, float(rng.normal(0, 0.1)), float(rng.uniform(1.1, 1.7)))
