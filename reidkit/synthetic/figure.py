"""One dressed person on a canvas.

Which surface is seen where (coat or shirt, face or hair, sock or skin) follows from depth and from
the angle around the body, so every view comes from one description.
"""

from __future__ import annotations

from reidkit.synthetic.bags import draw_bag
from reidkit.synthetic.brush import Brush, Palette
from reidkit.synthetic.head import draw_head
from reidkit.synthetic.limbs import draw_arms, draw_legs
from reidkit.synthetic.pose import Pose, View, skeleton
from reidkit.synthetic.raster import Canvas
from reidkit.synthetic.trunk import draw_trunk
from reidkit.synthetic.wardrobe import Identity


def draw_figure(canvas: Canvas, who: Identity, pose: Pose, view: View) -> Palette:
    """Puts the whole person on the canvas and returns the materials used."""
    palette = Palette()
    body = skeleton(pose, shoulders=who.shoulders, hips=who.hips, girth=who.girth)
    brush = Brush(canvas, view, palette, body.lift)
    draw_legs(brush, who, body)
    draw_trunk(brush, who, pose, body)
    draw_arms(brush, who, body)
    draw_head(brush, who, pose, body)
    if who.bag is not None:
        draw_bag(brush, who.bag, who, body)
    return palette
