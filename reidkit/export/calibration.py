"""Images that the ranges of an int8 network are measured on."""

# T frames, H W pixels of the network's input

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from reidkit.data.clips import test_clips
from reidkit.errors import ConfigError
from reidkit.image import read_image
from reidkit.preprocess import Preprocess
from reidkit.types import Dataset, Tracklet

MAX_IMAGES = 256
MAX_CLIPS = 32
_T = TypeVar("_T")


def image_crops(paths: Sequence[Path], preprocess: Preprocess) -> list[NDArray[np.uint8]]:
    """At most `MAX_IMAGES` of the images, evenly spaced, as RGB uint8 [H, W, 3] of the network's
    size."""
    rgb = dataclasses.replace(preprocess, channels="rgb")
    return [rgb.pixels(read_image(path)) for path in evenly(paths, MAX_IMAGES)]


def training_crops(
    dataset: Dataset, preprocess: Preprocess, *, frames: int
) -> list[NDArray[np.uint8]]:
    """Training images of a data set as `image_crops`, or clips of `frames` frames, at most
    `MAX_CLIPS` of uint8 [T, H, W, 3]; single images where `frames` is 0.

    Raises:
        ConfigError: it has no training images, or clips are needed and it has no tracklets.
    """
    if not dataset.train:
        raise ConfigError(
            f"--calibrate {dataset.name}: it has no training images. Pass a folder of images"
        )
    if not frames:
        samples = [
            item.frames[0] if isinstance(item, Tracklet) else item
            for item in evenly(dataset.train, MAX_IMAGES)
        ]
        return image_crops([dataset.root / sample.path for sample in samples], preprocess)
    tracklets = [item for item in dataset.train if isinstance(item, Tracklet)]
    if not tracklets:
        raise ConfigError(
            f"--calibrate {dataset.name}: the network takes clips and it has single images. Pass a "
            "data set of tracklets"
        )
    clips = []
    for tracklet in evenly(tracklets, MAX_CLIPS):
        clip = test_clips(len(tracklet.frames), T=frames)[0]
        paths = [dataset.root / tracklet.frames[k].path for k in clip]
        clips.append(np.stack(image_crops(paths, preprocess)))
    return clips


def evenly(items: Sequence[_T], most: int) -> list[_T]:
    """At most `most` of the items, evenly spaced, in order."""
    count = min(len(items), most)
    return [items[index * len(items) // count] for index in range(count)]
