"""Augmentation: drawn once per sample from its own seed, applied alike to image and mask.

What needs single images (resize, crop, flip) works on uint8 where the image is decoded; what is
arithmetic (normalise, erase) works on the whole batch, on its device. torchvision's transforms draw
from a global generator, which an exact resume cannot replay; the drawing is therefore our own.
"""

# B batch, H W pixels of the network's input, h w mask

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from reidkit.config import AugmentConfig
from reidkit.preprocess import Preprocess


@dataclass(frozen=True)
class Augmentation:
    """What happens to one sample (all frames of a clip share one).

    Attributes:
        crop: (top, left) in the image enlarged by `crop_scale`, or None: resized as it is.
        flip: mirrored left to right.
        erase: (top, left, height, width) in pixels of the network's input; no area: nothing.
    """

    crop: tuple[int, int] | None
    flip: bool
    erase: tuple[int, int, int, int]


def draw_augmentation(
    config: AugmentConfig, size: tuple[int, int], rng: np.random.Generator
) -> Augmentation:
    """Draws crop, flip and erasing for an input of `size` (height, width)."""
    crop = None
    if config.crop == "translate" and rng.random() < config.crop_probability:
        room = [round(side * config.crop_scale) - side for side in size]
        crop = (int(rng.integers(room[0] + 1)), int(rng.integers(room[1] + 1)))
    flip = bool(rng.random() < config.flip)
    erase = (0, 0, 0, 0)
    if rng.random() < config.erase:
        erase = draw_erasing(config.erase_area, config.erase_aspect, size, rng)
    return Augmentation(crop, flip, erase)


def draw_erasing(
    area: tuple[float, float],
    aspect: tuple[float, float],
    size: tuple[int, int],
    rng: np.random.Generator,
) -> tuple[int, int, int, int]:
    """A rectangle (top, left, height, width) for random erasing, Zhong et al. 2017, algorithm 1.

    Area (of the image) and aspect (height / width) are uniform; up to 100 tries for one that fits
    inside; none fits: no area.
    """
    H, W = size
    for _ in range(100):
        target = rng.uniform(*area) * H * W
        ratio = rng.uniform(*aspect)
        height, width = round((target * ratio) ** 0.5), round((target / ratio) ** 0.5)
        if height < H and width < W:
            top, left = rng.integers(H - height + 1), rng.integers(W - width + 1)
            return int(top), int(left), height, width
    return (0, 0, 0, 0)


def augment_image(
    image: Image.Image, augmentation: Augmentation, preprocess: Preprocess, crop_scale: float
) -> NDArray[np.uint8]:
    """Resize, crop, flip: uint8 [H, W, 3]."""
    if augmentation.crop is None:
        pixels = preprocess.pixels(image)
    else:
        (top, left), (H, W) = augmentation.crop, preprocess.size
        pixels = preprocess.pixels(image, scale=crop_scale)[top : top + H, left : left + W]
    return pixels[:, ::-1] if augmentation.flip else pixels


def augment_mask(
    mask: NDArray[np.uint8], augmentation: Augmentation, size: tuple[int, int], crop_scale: float
) -> NDArray[np.uint8]:
    """The same crop and flip of a part-index map [h, w]. Erasing leaves masks alone, as the
    authors' code does: the parts under an erased area stay the target."""
    if augmentation.crop is not None:
        rows, columns = (
            ((start + (np.arange(cells) + 0.5) * side / cells) / (crop_scale * side) * cells)
            for start, side, cells in zip(augmentation.crop, size, mask.shape, strict=True)
        )
        mask = mask[rows.astype(np.intp)][:, columns.astype(np.intp)]
    return mask[:, ::-1] if augmentation.flip else mask


def erase(
    images: Tensor, boxes: Tensor, value: Sequence[float], noise: torch.Generator | None = None
) -> Tensor:
    """Fills a rectangle of each normalised image.

    Args:
        images: float32 [B, 3, H, W].
        boxes: int64 [B, 4], (top, left, height, width).
        value: per channel, in the normalised space.
        noise: N(0, 1) per pixel from this generator (on the CPU) in place of `value`.
    """
    B, _, H, W = images.shape
    top, left, height, width = (edge.view(B, 1) for edge in boxes.to(images.device).unbind(1))
    y, x = torch.arange(H, device=images.device), torch.arange(W, device=images.device)
    rows, columns = (y >= top) & (y < top + height), (x >= left) & (x < left + width)
    inside = (rows.view(B, 1, H, 1)) & (columns.view(B, 1, 1, W))
    if noise is None:
        fill = torch.tensor(value, device=images.device, dtype=images.dtype).view(1, 3, 1, 1)
    else:
        fill = torch.randn(images.shape, generator=noise).to(images)
    return torch.where(inside, fill, images)
