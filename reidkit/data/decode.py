"""Images as tensors, which torch resizes: for training, and elsewhere on request.

torchvision.io, which comes with reidkit's dependencies, decodes a JPEG by libjpeg-turbo straight
into a tensor in half of Pillow's time, and torch resizes uint8 with vector instructions in a
quarter of it (benchmarks/input_pipeline.py); the decoded pixels are Pillow's, the resized ones
differ by rounding. torchvision 0.29 announces that its decoders will leave for TorchCodec: where
they are gone, Pillow decodes and torch still resizes. By default, images are Pillow's throughout
at test time, since published numbers depend on its resize.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from reidkit.errors import DataError
from reidkit.files import check_regular
from reidkit.image import read_image

SMALL = 200_000
"""Bytes up to which a file is decoded without a look at its header; no JPEG so small is above
`image.MAX_PIXELS` unless it is nearly blank."""


def read_tensor(path: Path) -> Tensor:
    """A decoded image for `Preprocess.pixels`: uint8 [3, H, W], values and errors as `read_image`.

    Raises:
        DataError: as `read_image`.
    """
    if path.suffix.lower() in (".jpg", ".jpeg"):
        check_regular(path, DataError)
        try:
            data = path.read_bytes()
            if len(data) <= SMALL:
                return _decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        except (OSError, RuntimeError, ValueError, ImportError):
            pass  # read_image says what is wrong with the file, or decodes it
    return to_tensor(read_image(path))


def to_tensor(image: Image.Image) -> Tensor:
    """A copy of an RGB image: uint8 [3, H, W]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _decode_jpeg(encoded: Tensor) -> Tensor:
    from torchvision.io import ImageReadMode, decode_jpeg

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The image decoding", DeprecationWarning)
        pixels: Tensor = decode_jpeg(encoded, mode=ImageReadMode.RGB, apply_exif_orientation=True)
    return pixels
