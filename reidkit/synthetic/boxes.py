"""Boxes as detectors and people draw them around somebody."""

from __future__ import annotations

import numpy as np

from reidkit.synthetic import tuning
from reidkit.synthetic.moment import Box


def detected_box(rng: np.random.Generator) -> Box:
    """A detector's box: mostly good, sometimes shifted, cut off or far too large."""
    scale = float(rng.triangular(tuning.BOX_SCALE[0], 1.06, tuning.BOX_SCALE[1]))
    shift_x, shift_y = (float(v) for v in rng.normal(0, tuning.BOX_SHIFT, 2) * (0.7, 0.6))
    if rng.random() < tuning.BAD_BOX_ODDS:
        kind = rng.random()
        if kind < 0.4:  # cut off
            scale = float(rng.uniform(0.72, 0.92))
            shift_y = float(rng.choice([-1, 1])) * float(rng.uniform(0.02, 0.14))
        elif kind < 0.7:  # far too large
            scale = float(rng.uniform(1.3, 1.55))
        else:
            shift_x = float(rng.choice([-1, 1])) * float(rng.uniform(0.08, 0.16))
    return Box(shift_x, shift_y, scale)


def drawn_box(rng: np.random.Generator) -> Box:
    """A box drawn by hand: tight and centred."""
    shift_x, shift_y = (float(v) for v in rng.normal(0, 0.008, 2))
    return Box(shift_x, shift_y, float(rng.uniform(1.03, 1.14)))


def bad_box(rng: np.random.Generator) -> Box:
    """A box that nobody would accept: a part of the person, or mostly what is around."""
    if rng.random() < 0.7:
        scale = float(rng.uniform(0.3, 0.62))
        reach = 0.5 / scale  # of the person, in box heights
        return Box(float(rng.normal(0, 0.14)), float(rng.uniform(-0.75, 0.75)) * reach, scale)
    side = float(rng.choice([-1, 1])) * float(rng.uniform(0.2, 0.34))
    return Box(side, float(rng.normal(0, 0.1)), float(rng.uniform(1.1, 1.7)))
