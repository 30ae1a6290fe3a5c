"""The parameters that set how varied, and so how hard, the synthetic data are.

Raising CAST, EXPOSURE, LIGHT or OCCLUDER_ODDS, or widening BOX_SCALE, makes images of one person
differ more, so that colour alone retrieves fewer of them; raising ACCESSORY_ODDS or COLOUR_JITTER
gives a network more cues to distinguish people. With these values and 40 test identities, a colour
histogram in six stripes reaches 8-10 % mAP, an untrained ResNet-18 9-11 %, and a ResNet-18 trained
for 144 batches of 64 images of 120 other identities 59 %.
"""

from __future__ import annotations

IMAGE_HEIGHT, IMAGE_WIDTH = 128, 64
SUPERSAMPLE = 2
"""Canvas pixels per image pixel and axis."""

# --- identities -----------------------------------------------------------------------------
COLOUR_JITTER = 0.035
"""Standard deviation of a garment's colour between two owners, relative to the colour."""
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
"""Standard deviation of a camera's log gain per colour channel."""
EXPOSURE = (0.88, 1.18)
CONTRAST = (0.85, 1.12)
SATURATION = (0.62, 1.0)
BLUR = (0.35, 0.95)
"""Standard deviation of a camera's blur in image pixels."""
NOISE = (0.006, 0.022)
JPEG_QUALITY = (55, 90)
TILT = (0.06, 0.42)
"""Elevation angle of the cameras in radians."""

# --- moments --------------------------------------------------------------------------------
STANDING_ODDS = 0.1
"""Probability that a person stands instead of walking."""
LIGHT = 0.11
"""Standard deviation of the log light between two walks seen by one camera."""
RESOLUTION = (0.45, 1.0)
"""Height of the person on the sensor relative to the image, before the crop is resized."""
BOX_SHIFT = 0.035
"""Standard deviation of the box's centre in box heights."""
BOX_SCALE = (0.96, 1.24)
"""Box height relative to the person's; bad boxes exceed this range."""
BAD_BOX_ODDS = 0.10
OCCLUDER_ODDS = 0.1
PASSERBY_ODDS = 0.16
"""Probability that another person walks behind or in front."""
