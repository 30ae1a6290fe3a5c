"""Data augmentation: sampled once per sample from its own seed, applied to image and mask alike.

Resize, crop and flip work on single uint8 images in the loader's workers; normalisation and erasing
work on the whole batch, on its device. torchvision's transforms use the global random generator,
which an exact resume cannot replay; parameters are therefore sampled here.
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
    """Augmentation parameters of one sample; all frames of a clip share them.

    Attributes:
        crop: (top, left) of the crop in the image enlarged by `crop_scale`, with black outside of
            the image; None: no crop.
        flip: mirror left to right.
        erase: (top, left, height, width) in pixels of the network's input; without area: nothing.
    """

    crop: tuple[int, int] | None
    flip: bool
    erase: tuple[int, int, int, int]


def sample_augmentation(
    config: AugmentConfig, size: tuple[int, int], rng: np.random.Generator
) -> Augmentation:
    """Samples crop, flip and erasing for an input of `size` (height, width)."""
    crop = None
    if config.crop == "translate" and rng.random() < config.crop_probability:
        room = [round(side * config.crop_scale) - side for side in size]
        crop = (int(rng.integers(room[0] + 1)), int(rng.integers(room[1] + 1)))
    elif config.crop == "pad" and rng.random() < config.crop_probability:
        top, left = (int(p) for p in rng.integers(2 * config.crop_padding + 1, size=2))
        crop = (top - config.crop_padding, left - config.crop_padding)
    flip = bool(rng.random() < config.flip)
    erase = (0, 0, 0, 0)
    if rng.random() < config.erase:
        erase = sample_erasing(config.erase_area, config.erase_aspect, size, rng)
    return Augmentation(crop, flip, erase)


def sample_erasing(
    area: tuple[float, float],
    aspect: tuple[float, float],
    size: tuple[int, int],
    rng: np.random.Generator,
) -> tuple[int, int, int, int]:
    """A rectangle (top, left, height, width) for random erasing, Zhong et al. 2017, algorithm 1.

    Area (share of the image) and aspect (height / width) are uniform. The first of 100 candidates
    that fits inside is returned, or a rectangle without area if none does.
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
    image: Image.Image | Tensor,
    augmentation: Augmentation,
    preprocess: Preprocess,
    crop_scale: float,
) -> NDArray[np.uint8]:
    """Resize, crop, flip: uint8 [H, W, 3]."""
    if augmentation.crop is None:
        pixels = preprocess.pixels(image)
    else:
        pixels = _window(
            preprocess.pixels(image, scale=crop_scale), augmentation.crop, preprocess.size
        )
    return _mirror(pixels) if augmentation.flip else pixels


def _mirror(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[H, W, 3] left to right. torch moves whole pixels of interleaved channels; numpy's copy of
    pixels[:, ::-1] moves single bytes and takes ten times as long."""
    writeable = pixels if pixels.flags.writeable else pixels.copy()
    channels_last = torch.from_numpy(writeable).unsqueeze(0).permute(0, 3, 1, 2)
    mirrored: NDArray[np.uint8] = channels_last.flip(-1)[0].permute(1, 2, 0).numpy()
    return mirrored


def _window(
    pixels: NDArray[np.uint8], corner: tuple[int, int], size: tuple[int, int]
) -> NDArray[np.uint8]:
    """The crop of `size` at `corner`, black outside of `pixels`."""
    (top, left), (H, W) = corner, size
    inside = pixels[max(top, 0) : top + H, max(left, 0) : left + W]
    if inside.shape[:2] == (H, W):
        return inside
    window = np.zeros((H, W, 3), np.uint8)
    y, x = max(-top, 0), max(-left, 0)
    window[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return window


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
        rows, columns = (np.floor(places).astype(np.intp) for places in (rows, columns))
        inside = _within(rows, mask.shape[0])[:, None] & _within(columns, mask.shape[1])
        h, w = mask.shape
        mask = mask[rows.clip(0, h - 1)][:, columns.clip(0, w - 1)] * inside.astype(np.uint8)
    return mask[:, ::-1] if augmentation.flip else mask


def _within(places: NDArray[np.intp], cells: int) -> NDArray[np.bool_]:
    return (places >= 0) & (places < cells)


def erase(
    images: Tensor,
    boxes: Tensor,
    value: Sequence[float],
    noise: Tensor | None = None,
    *,
    inplace: bool = False,
) -> Tensor:
    """Random erasing: fills a rectangle of each normalised image.

    Args:
        images: float32 [B, 3, H, W].
        boxes: int64 [B, 4], (top, left, height, width).
        value: per channel, in the normalised space.
        noise: like `images`, used instead of `value`.
        inplace: `images` may be overwritten.
    """
    B, _, H, W = images.shape
    if (
        noise is None and images.device.type == "cpu"
    ):  # fills a few boxes, without a mask of the batch
        erased = images if inplace else images.clone()
        fill = torch.tensor(value, dtype=images.dtype).view(3, 1, 1)
        for image, (top, left, height, width) in zip(erased, boxes.tolist(), strict=True):
            image[:, top : top + height, left : left + width] = fill
        return erased
    top, left, height, width = (edge.view(B, 1) for edge in boxes.to(images.device).unbind(1))
    y, x = torch.arange(H, device=images.device), torch.arange(W, device=images.device)
    rows, columns = (y >= top) & (y < top + height), (x >= left) & (x < left + width)
    inside = (rows.view(B, 1, H, 1)) & (columns.view(B, 1, 1, W))
    if noise is None:
        fill = torch.tensor(value, device=images.device, dtype=images.dtype).view(1, 3, 1, 1)
    else:
        fill = noise.to(images, non_blocking=True)
    return torch.where(inside, fill, images)


def erase_noise(shape: torch.Size, boxes: Tensor, seeds: Sequence[tuple[int, ...]]) -> Tensor:
    """N(0, 1) per pixel for `erase`, float32 [B, 3, H, W] on the CPU, zero outside of the boxes.
    Each sample's noise depends on its own seed only, not on the rest of the batch."""
    noise = torch.zeros(shape)
    for row, (box, seed) in enumerate(zip(boxes.tolist(), seeds, strict=True)):
        if box[2] and box[3]:
            top, left, height, width = box
            rng = np.random.default_rng([*seed, 1])
            patch = rng.standard_normal((shape[1], height, width), np.float32)
            noise[row, :, top : top + height, left : left + width] = torch.from_numpy(patch)
    return noise
