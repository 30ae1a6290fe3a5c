"""Synthetic pedestrians with exact human-parsing maps, in the layout of any supported data set.

    LAYOUTS["market1501"](Path("data/synth"), train_pids=40, test_pids=40, seed=0)

Rendering does not depend on the layout: `sample_identity` samples a person, `make_cameras` the
cameras, `walk` the moments of a walk (`video_moments` and `image_moments` add other people and
occluders), and `render` renders one image with its labels.
"""

from reidkit.synthetic.brush import Lip
from reidkit.synthetic.camera import Camera, make_cameras
from reidkit.synthetic.layouts import LAYOUTS, Writer
from reidkit.synthetic.moment import Box, Moment, Occluder, Passerby
from reidkit.synthetic.render import render
from reidkit.synthetic.walk import image_moments, video_moments, walk
from reidkit.synthetic.wardrobe import Identity, sample_identity

__all__ = [
    "LAYOUTS",
    "Box",
    "Camera",
    "Identity",
    "Lip",
    "Moment",
    "Occluder",
    "Passerby",
    "Writer",
    "image_moments",
    "make_cameras",
    "render",
    "sample_identity",
    "video_moments",
    "walk",
]
