"""Preprocessing of images: size, interpolation, normalisation, channel order.

A recipe sets it, checkpoints and ONNX files contain it, and every command applies it by these
functions. Pillow resizes, since published numbers depend on its filters, and rows before columns,
since they depend on that too.
"""

# B batch, H W pixels of the network's input

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from reidkit.choices import ChannelOrder, Interpolation
from reidkit.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


MAX_SIDE = 4096
"""Bound on the height and the width of a network's input."""

MAX_ASPECT = 100
"""Height over width up to which rows are resized first. A pixel wide and 64 million high, an image
with resized rows would take gigabytes."""


@dataclass(frozen=True)
class Preprocess:
    """Size, interpolation and normalisation of a network's input.

    Attributes:
        size: (height, width) in pixels.
        interpolation: Pillow's filter for resizing.
        mean, std: per channel, for values scaled to [0, 1], in the order of `channels`.
        channels: the order the network expects; files are always read as RGB.
    """

    size: tuple[int, int] = (256, 128)
    interpolation: Interpolation = "bicubic"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # ImageNet's
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    channels: ChannelOrder = "rgb"

    def __post_init__(self) -> None:
        if not all(1 <= side <= MAX_SIDE for side in self.size):
            raise ConfigError(f"size must be 1 to {MAX_SIDE} pixels, got {list(self.size)}")
        if not all(
            math.isfinite(m) and 0 < s < math.inf for m, s in zip(self.mean, self.std, strict=True)
        ):
            raise ConfigError(
                f"mean must be finite and std positive, got {list(self.mean)} and {list(self.std)}"
            )

    def pixels(self, image: Image.Image | Tensor, *, scale: float = 1.0) -> NDArray[np.uint8]:
        """The image resized to `size` times `scale`: uint8 [H, W, 3], in `channels` order.

        Pillow resizes Pillow images. torch's antialiased filter of the same name resizes tensors
        (uint8 [3, H, W], as decoded for training): it is several times faster and differs by at
        most two grey levels, for most pixels by none.
        """
        height, width = (round(side * scale) for side in self.size)
        if isinstance(image, Image.Image):
            array = _resize(image, height, width, self.interpolation)
        elif tuple(image.shape[1:]) == (height, width):
            array = image.permute(1, 2, 0).numpy()  # torch would copy, with all of its threads
        elif image.shape[1] > MAX_ASPECT * image.shape[2]:
            interleaved = Image.fromarray(image.permute(1, 2, 0).numpy())
            array = _resize(interleaved, height, width, self.interpolation)
        else:
            from torch.nn.functional import interpolate

            # Unsqueezed as [1, H, W, 3], so that torch recognises channels-last and keeps it.
            batch = image.permute(1, 2, 0).unsqueeze(0).permute(0, 3, 1, 2)
            resized = interpolate(batch, (height, width), mode=self.interpolation, antialias=True)
            array = resized[0].permute(1, 2, 0).numpy()
        return array if self.channels == "rgb" else array[..., ::-1]

    def normalise_into(self, pixels: NDArray[np.uint8], images: NDArray[np.float32]) -> None:
        """uint8 [B, H, W, 3] -> `images`, float32 [B, 3, H, W] of any strides: the arithmetic of
        `normalise`, bit by bit, in memory that the caller reuses."""
        mean, std = (np.array(value, np.float32)[:, None, None] for value in (self.mean, self.std))
        for source, image in zip(pixels, images, strict=True):  # one at a time: they stay in cache
            np.copyto(image, source.transpose(2, 0, 1))
            image /= np.float32(255)
            image -= mean
            image /= std

    def to_json(self) -> str:
        """As JSON, for headers and attributes of files."""
        return json.dumps(dataclasses.asdict(self))

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 [B, H, W, 3] -> float32 [B, 3, H, W] on the same device."""
        import torch

        B, H, W, _ = pixels.shape
        # On whole rows of interleaved channels: the same arithmetic on long contiguous vectors.
        mean, std = (
            torch.tensor(value, device=pixels.device).repeat(W) for value in (self.mean, self.std)
        )
        rows = pixels.reshape(B, H, W * 3).float().div_(255).sub_(mean).div_(std)
        return rows.view(B, H, W, 3).permute(0, 3, 1, 2)


def _resize(
    image: Image.Image, height: int, width: int, interpolation: Interpolation
) -> NDArray[np.uint8]:
    """uint8 [height, width, 3], rows resized before columns up to `MAX_ASPECT`.

    Pillow before 13 and torch do it in this order. Pillow 13 resizes columns first where the height
    shrinks much more than the width; where bicubic values overshoot, between black and white, they
    then differ by up to 32 grey levels.
    """
    rows_first = image.height <= MAX_ASPECT * image.width
    first = (width, image.height) if rows_first else (image.width, height)
    resampling = _RESAMPLING[interpolation]
    return np.asarray(image.resize(first, resampling).resize((width, height), resampling))
