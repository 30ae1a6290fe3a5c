"""Part attention of a few images, as small pictures for a report."""

# P parts, h w part map, H W pixels of the network's input

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from reidkit.data.pixels import pixel_batches
from reidkit.runtime.torch_embedder import TorchEmbedder
from reidkit.types import PARTS
from reidkit.visualize.images import data_url
from reidkit.visualize.part_attention import mean_maps


@dataclass(frozen=True)
class AttentionExample:
    """One image and where the network looks for each part.

    Attributes:
        caption: below the pictures.
        pictures: (title, data URL) of the image, then of each part's attention.
    """

    caption: str
    pictures: tuple[tuple[str, str], ...]


@torch.inference_mode()
def attention_examples(
    embedder: TorchEmbedder, images: Sequence[Path], captions: Sequence[str]
) -> list[AttentionExample]:
    """The part maps over each image, averaged over the network's blocks; empty for a network
    without part maps.

    Raises:
        DataError: an image cannot be read.
    """
    examples = []
    size = embedder.preprocess.size
    for pixels, caption in zip(
        pixel_batches([[image] for image in images], embedder.preprocess), captions, strict=True
    ):
        maps = embedder.model.eval()(embedder.images(pixels)).part_maps
        if not maps:
            return []
        attention = mean_maps(maps, size)[0].cpu().numpy()  # [P, H, W]
        picture = pixels[0] if embedder.preprocess.channels == "rgb" else pixels[0][..., ::-1]
        names = PARTS if len(attention) == len(PARTS) else range(1, len(attention) + 1)
        overlays = (
            (str(name), data_url(overlay(picture, part)))
            for name, part in zip(names, attention, strict=True)
        )
        original = ("image", data_url(Image.fromarray(np.ascontiguousarray(picture))))
        examples.append(AttentionExample(caption, (original, *overlays)))
    return examples


def overlay(pixels: NDArray[np.uint8], attention: NDArray[np.float32]) -> Image.Image:
    """An image in grey with its attention from dark (0) to bright (1).

    Args:
        pixels: uint8 [H, W, 3].
        attention: float [H, W] in [0, 1].
    """
    import matplotlib

    grey = np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).convert("L"))
    heat = matplotlib.colormaps["inferno"](attention.clip(0, 1))[..., :3]  # [H, W, 3]
    blended = 0.4 * grey[..., None] + 0.6 * 255 * heat
    return Image.fromarray(blended.round().astype(np.uint8))
