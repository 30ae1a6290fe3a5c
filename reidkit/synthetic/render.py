"""Renders one image of one person and its exact label map."""

# h w image pixels, H W canvas pixels (h · SUPERSAMPLE)

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reidkit.synthetic import tuning
from reidkit.synthetic.camera import Camera, capture
from reidkit.synthetic.figure import draw_figure
from reidkit.synthetic.moment import Moment, Occluder
from reidkit.synthetic.paint import Layer, paint
from reidkit.synthetic.pose import Pose, View
from reidkit.synthetic.raster import Canvas, Float
from reidkit.synthetic.scene import HORIZON, SCENE_HEIGHT, SCENE_WIDTH, texture
from reidkit.synthetic.wardrobe import Identity


class Standing(NamedTuple):
    """A person at a position of the image; position of the feet and height in image pixels."""

    identity: Identity
    pose: Pose
    foot_x: float
    foot_y: float
    tall: float


def render(
    identity: Identity, camera: Camera, moment: Moment, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The image of a person by a camera at a moment.

    Args:
        rng: used for sensor noise only.
    Returns:
        rgb uint8 [h, w, 3] and LIP labels uint8 [h, w] of this person; occluders, other people
        and bags are background.
    """
    h, w = tuning.IMAGE_HEIGHT, tuning.IMAGE_WIDTH
    tall = h / moment.box.scale  # of the person, in image pixels
    foot_x = w / 2 + moment.box.shift_x * h
    foot_y = h / 2 + tall * 0.495 + moment.box.shift_y * h
    image = _background(camera, moment, foot_y / h)
    labels = np.zeros((h, w), np.uint8)
    passerby = moment.passerby
    other = None
    if passerby is not None:
        other = Standing(
            passerby.identity,
            passerby.pose,
            foot_x + passerby.aside * w,
            foot_y + (passerby.size - 1) * 0.25 * h,
            tall * passerby.size,
        )
        if passerby.size <= 1:
            image, _ = _add_person(image, camera, moment, other)
    if not moment.empty:
        person = Standing(identity, moment.pose, foot_x, foot_y, tall)
        image, layer = _add_person(image, camera, moment, person)
        labels = layer.labels
    if other is not None and passerby is not None and passerby.size > 1:
        image, layer = _add_person(image, camera, moment, other)
        labels[layer.cover > 0.5] = 0
    if moment.occluder is not None:
        image = _occlude(image, labels, camera, moment.occluder, foot_y, tall)
    rgb = capture(
        image, camera, rng, light=moment.light, resolution=moment.resolution, streak=moment.streak
    )
    return rgb, labels


def _add_person(
    image: Float, camera: Camera, moment: Moment, person: Standing
) -> tuple[Float, Layer]:
    """The image with a person and their shadow, and the layer of the person alone."""
    identity, pose, foot_x, foot_y, tall = person
    h, w = image.shape[:2]
    step = tuning.SUPERSAMPLE
    canvas = Canvas(h * step, w * step)
    # people look shorter from above; the box has their apparent height
    scale = (
        tall
        / (math.cos(camera.tilt) + 0.1 * math.sin(camera.tilt))
        / (1 + camera.perspective * 0.25 * math.sin(camera.tilt))
    )
    view = View(
        pose.yaw, camera.tilt, scale * step, foot_x * step, foot_y * step, camera.perspective
    )
    palette = draw_figure(canvas, identity, pose, view)
    top, left = moment.wrinkles
    layer = paint(canvas, palette, camera.light, wrinkles()[top:, left:])
    _shadow(image, camera, foot_x, foot_y, tall)
    return layer.rgb + image * (1 - layer.cover)[..., None], layer


def _background(camera: Camera, moment: Moment, foot: float) -> Float:
    """The part of the scene behind the box; `foot` is the feet's position in it, in [0, 1]."""
    across, depth = moment.place
    ground = HORIZON + 14 + depth * (SCENE_HEIGHT - HORIZON - 30)
    high = 112 * (0.74 + 0.4 * depth) * moment.box.scale
    wide = high * tuning.IMAGE_WIDTH / tuning.IMAGE_HEIGHT
    top = min(max(ground - foot * high, 0.0), SCENE_HEIGHT - high)
    left = across * (SCENE_WIDTH - wide)
    part = camera.scene.resize(
        (tuning.IMAGE_WIDTH, tuning.IMAGE_HEIGHT),
        Image.Resampling.BILINEAR,
        box=(left, top, left + wide, top + high),
    )
    return np.asarray(part, np.float32) / 255


@functools.lru_cache(maxsize=1)
def wrinkles() -> Float:
    """Wrinkles of cloth as relative brightness around 0, [640, 512]; a constant texture."""
    rng = np.random.default_rng(20)
    fine = texture(rng, (640, 512), (7, 16), (0.5, 0.8))
    rows = np.arange(640)[:, None]
    slant = np.take_along_axis(fine, (np.arange(512)[None, :] + rows // 2) % 512, axis=1)
    return (np.clip(slant, -1.6, 1.6) * 0.10).astype(np.float32)


def _shadow(image: Float, camera: Camera, foot_x: float, foot_y: float, tall: float) -> None:
    """Darkens the ground: a contact shadow, and a soft one away from the light."""
    h, w = image.shape[:2]
    y = np.arange(h, dtype=np.float32)[:, None] - (foot_y - 0.01 * tall)
    x = np.arange(w, dtype=np.float32)[None, :] - foot_x
    flat = 0.03 + 0.12 * math.sin(camera.tilt)
    near = np.exp(-((x / (0.13 * tall)) ** 2 + (y / (flat * tall)) ** 2))
    far_x = x + (camera.light.x * 0.22 * tall)
    far = np.exp(-((far_x / (0.26 * tall)) ** 2 + (y / (1.3 * flat * tall)) ** 2))
    image *= (1 - 0.42 * near - (0.55 * camera.light.direct) * far)[..., None]


def _occlude(
    image: Float,
    labels: NDArray[np.uint8],
    camera: Camera,
    occluder: Occluder,
    foot_y: float,
    tall: float,
) -> Float:
    """Draws an object in front of the person and clears the labels behind it."""
    h, w = labels.shape
    sprite = camera.clutter[occluder.index]
    size = tall / 110 * occluder.size
    sprite = sprite.resize(
        (max(int(sprite.width * size), 2), max(int(sprite.height * size), 2)),
        Image.Resampling.BILINEAR,
    )
    if occluder.mirror:
        sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    sheet = Image.new("RGBA", (w, h))
    sheet.paste(
        sprite,
        (int(occluder.x * w - sprite.width / 2), int(foot_y + occluder.below * h - sprite.height)),
    )
    pixels = np.asarray(sheet, np.float32) / 255
    cover = pixels[..., 3:]
    labels[cover[..., 0] > 0.5] = 0
    result: Float = image * (1 - cover) + pixels[..., :3] * cover
    return result
