"""The training input path's decoder.

torchvision.io, which comes with reidkit's dependencies, decodes a JPEG by libjpeg-turbo straight
into a tensor in half of Pillow's time, and torch resizes uint8 with vector instructions in a
quarter of it (benchmarks/input_pipeline.py); the pixels are Pillow's. torchvision 0.29 announces
that its decoders will leave for TorchCodec: where they are gone, Pillow decodes and torch still
resizes. Test-time images stay Pillow's throughout, since published numbers depend on its resize.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from reidkit.errors import DataError
from reidkit.files import check_regular
from reidkit.image import read_image

SMALL = 200_000
"""Bytes up to which a file is decoded without a look at its header; no JPEG so small is above
`image.MAX_PIXELS` unless it is nearly blank."""


def read_for_training(path: Path) -> Tensor:
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
    return torch.from_numpy(np.array(read_image(path))).permute(2, 0, 1)


def _decode_jpeg(encoded: Tensor) -> Tensor:
    from torchvision.io import ImageReadMode, decode_jpeg

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The image decoding", DeprecationWarning)
        pixels: Tensor = decode_jpeg(encoded, mode=ImageReadMode.RGB, apply_exif_orientation=True)
    return pixels
