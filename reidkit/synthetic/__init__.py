"""reidkit's own pedestrians: drawn people with exact human-parsing maps, in any supported layout.

    write_market1501(Path("data/synth"), train_pids=40, test_pids=40, seed=0)

The engine knows no layout: `sample_identity` draws a person, `make_cameras` the cameras, `walk` the
moments of one walk (`film` and `singles`: with company), `render` one image with its labels.
"""

from reidkit.synthetic.camera import Camera, make_cameras
from reidkit.synthetic.layouts import LAYOUTS, Writer, write_market1501
from reidkit.synthetic.moment import Box, Moment, Occluder, Passer
from reidkit.synthetic.render import render
from reidkit.synthetic.walk import film, singles, walk
from reidkit.synthetic.wardrobe import Identity, sample_identity

__all__ = [
    "LAYOUTS",
    "Box",
    "Camera",
    "Identity",
    "Moment",
    "Occluder",
    "Passer",
    "Writer",
    "film",
    "make_cameras",
    "render",
    "sample_identity",
    "singles",
    "walk",
    "write_market1501",
]
