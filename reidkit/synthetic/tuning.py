"""Every number that sets how hard and how varied the drawn people are, in one place.

Raising CAST, EXPOSURE, LIGHT or OCCLUDER_ODDS, or widening BOX_SCALE, makes images of one person
differ more, so that colour alone finds fewer of them; raising ACCESSORY_ODDS or COLOUR_JITTER gives
a network more to tell people apart by. As set, on 40 test people a colour histogram in six stripes
reaches 8-10 % mAP, an untrained ResNet-18 9-11 %, and one that saw 144 batches of 64 images of 120
other people 59 %.
"""

from __future__ import annotations

IMAGE_HEIGHT, IMAGE_WIDTH = 128, 64
SUPERSAMPLE = 2
"""Drawn pixels per image pixel and axis."""

# --- identities -----------------------------------------------------------------------------
COLOUR_JITTER = 0.035
"""Spread of one garment's colour between two owners, of 1."""
ACCESSORY_ODDS = {
    "hat": 0.16,
    "glasses": 0.2,
    "scarf": 0.14,
    "gloves": 0.07,
    "coat": 0.3,
    "bag": 0.6,
}
PATTERN_ODDS = {"plain": 0.5, "stripes": 0.15, "checks": 0.11, "print": 0.19, "columns": 0.05}

# --- cameras --------------------------------------------------------------------------------
CAST = 0.055
"""Spread of a camera's gain per colour channel."""
EXPOSURE = (0.88, 1.18)
CONTRAST = (0.85, 1.12)
SATURATION = (0.62, 1.0)
BLUR = (0.35, 0.95)
"""Standard deviation of a camera's blur in pixels of the image."""
NOISE = (0.006, 0.022)
JPEG_QUALITY = (55, 90)
TILT = (0.06, 0.42)
"""Elevation angle of the cameras, radians."""

# --- moments --------------------------------------------------------------------------------
STANDING_ODDS = 0.1
"""Chance that somebody stands instead of walking."""
LIGHT = 0.11
"""Spread of the light from one walk to another before the same camera."""
RESOLUTION = (0.45, 1.0)
"""Height of the person on the sensor relative to the image, before the crop is resized."""
BOX_SHIFT = 0.035
"""Spread of the box's centre in box heights (its width spreads by half of it, in box widths)."""
BOX_SCALE = (0.96, 1.24)
"""Box height relative to the person's; bad boxes go beyond."""
BAD_BOX_ODDS = 0.10
OCCLUDER_ODDS = 0.1
PASSER_ODDS = 0.16
"""Chance that somebody else walks behind or before the person."""
