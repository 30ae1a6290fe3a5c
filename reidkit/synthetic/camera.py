"""Cameras: their positions, backgrounds and optics."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from reidkit.synthetic import tuning
from reidkit.synthetic.clutter import OCCLUDERS, SPRITES
from reidkit.synthetic.paint import Light
from reidkit.synthetic.places import PLACES, draw_place
from reidkit.synthetic.raster import Float


@dataclass(frozen=True)
class Camera:
    """One fixed camera.

    Attributes:
        index: 1, 2, ...
        tilt: elevation angle in radians.
        headings: directions in which people walk (yaw in radians, 0 towards the camera).
        standing: range of the feet's depth in the scene, in [0, 1] (0 far, 1 near).
        gain: per colour channel, including exposure.
        blur, noise: standard deviations in pixels and in intensities of [0, 1].
        quality: of its JPEG files.
        scene: the background, of which an image shows a part.
        clutter: RGBA images of objects that may occlude people.
    """

    index: int
    place: str
    tilt: float
    perspective: float
    headings: tuple[float, ...]
    standing: tuple[float, float]
    light: Light
    gain: tuple[float, float, float]
    contrast: float
    saturation: float
    haze: float
    blur: float
    noise: float
    quality: int
    sharpen: bool
    scene: Image.Image = field(repr=False, compare=False)
    clutter: tuple[Image.Image, ...] = field(repr=False, compare=False)


@functools.lru_cache(maxsize=2)
def make_cameras(seed: int, count: int = 6) -> tuple[Camera, ...]:
    """The cameras of a data set; equal for equal seeds."""
    order = np.random.default_rng([seed, 1]).permutation(len(PLACES))
    kinds = list(PLACES)
    return tuple(
        _make_camera(
            index, kinds[order[(index - 1) % len(kinds)]], np.random.default_rng([seed, 2, index])
        )
        for index in range(1, count + 1)
    )


def _make_camera(index: int, place: str, rng: np.random.Generator) -> Camera:
    tilt = float(rng.uniform(*tuning.TILT))
    # Mostly both directions of one axis, one of them preferred, and some that cross it.
    axis = float(rng.uniform(0, 2 * np.pi))
    headings = (axis, axis, axis + 0.35, axis + np.pi, axis + np.pi - 0.35, axis + np.pi / 2)
    near = float(rng.uniform(0.12, 0.5))
    cast = np.exp(rng.normal(0, tuning.CAST, 3))
    cast /= cast.mean()
    gain = cast * rng.uniform(*tuning.EXPOSURE)
    side = float(rng.uniform(-0.75, 0.75))
    ambient = float(rng.uniform(0.5, 0.78))
    return Camera(
        index=index,
        place=place,
        tilt=tilt,
        perspective=float(rng.uniform(0.0, 0.3)),
        headings=headings,
        standing=(max(near - 0.22, 0.0), min(near + 0.22, 0.95)),
        light=Light(
            side,
            float(rng.uniform(-0.65, -0.35)),
            ambient,
            float(rng.uniform(0.95, 1.12)) - ambient,
        ),
        gain=(float(gain[0]), float(gain[1]), float(gain[2])),
        contrast=float(rng.uniform(*tuning.CONTRAST)),
        saturation=float(rng.uniform(*tuning.SATURATION)),
        haze=float(rng.uniform(0.0, 0.1)),
        blur=float(rng.uniform(*tuning.BLUR)),
        noise=float(rng.uniform(*tuning.NOISE)),
        quality=int(rng.integers(*tuning.JPEG_QUALITY)),
        sharpen=bool(rng.random() < 0.35),
        scene=draw_place(place, rng),
        clutter=tuple(SPRITES[name](rng) for name in OCCLUDERS),
    )


def capture(
    image: Float,
    camera: Camera,
    rng: np.random.Generator,
    *,
    light: tuple[float, float, float] = (1.0, 1.0, 1.0),
    resolution: float = 1.0,
    streak: float = 0.0,
) -> NDArray[np.uint8]:
    """Simulates optics, sensor and processing of a camera.

    Args:
        image: [h, w, 3] in [0, 1].
        light: gain per colour channel at the moment.
        resolution: sensor pixels per image pixel.
        streak: horizontal motion blur in pixels.
    """
    colour = image * (np.asarray(camera.gain, np.float32) * np.asarray(light, np.float32))
    grey = colour @ np.asarray([0.3, 0.59, 0.11], np.float32)
    colour = grey[..., None] + camera.saturation * (colour - grey[..., None])
    colour = (colour - 0.42) * camera.contrast + 0.42
    colour = colour * (1 - camera.haze) + (camera.haze * 0.62)
    # Highlights are compressed instead of clipped, as by real sensors.
    colour = np.where(colour > 0.8, 0.8 + 0.2 * np.tanh((colour - 0.8) / 0.2), colour)
    h, w = colour.shape[:2]
    frame = Image.fromarray((np.clip(colour, 0, 1) * 255 + 0.5).astype(np.uint8))
    if resolution < 0.97:
        small = (max(int(w * resolution), 8), max(int(h * resolution), 16))
        frame = frame.resize(small, Image.Resampling.BILINEAR)
    frame = frame.filter(ImageFilter.GaussianBlur(camera.blur * max(resolution, 0.6)))
    if camera.sharpen:
        frame = frame.filter(ImageFilter.UnsharpMask(1.2, 70, 2))
    pixels = np.asarray(frame, np.float32)
    if streak > 0.2:
        share = min(streak, 2.0) / 4
        pixels = pixels * (1 - 2 * share) + share * (
            np.roll(pixels, 1, axis=1) + np.roll(pixels, -1, axis=1)
        )
    strength = camera.noise * 255
    pixels = pixels + strength * rng.standard_normal(pixels.shape[:2], np.float32)[..., None]
    pixels += 0.6 * strength * rng.standard_normal(pixels.shape, np.float32)
    noisy: NDArray[np.uint8] = np.clip(pixels + 0.5, 0, 255).astype(np.uint8)
    if noisy.shape[:2] == (h, w):
        return noisy
    return np.asarray(Image.fromarray(noisy).resize((w, h), Image.Resampling.BICUBIC))
