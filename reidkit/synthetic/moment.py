"""The single moment that an image shows: everything that is not the person or the camera."""

from __future__ import annotations

from dataclasses import dataclass

from reidkit.synthetic.pose import Pose
from reidkit.synthetic.wardrobe import Identity


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
