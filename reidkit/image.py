"""The one image reader: 8-bit RGB, upright, with one pixel cap and errors that name the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from reidkit.errors import DataError

MAX_PIXELS = 64_000_000
"""Images above this many pixels are refused before they are decoded."""


def read_image(path: Path) -> Image.Image:
    """A fully decoded RGB image.

    Raises:
        DataError: if the file is missing, is not an image, is cut off, or is above MAX_PIXELS.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise DataError(
                    f"{path}: {width}x{height} pixels, more than the cap of {MAX_PIXELS:,}. "
                    "Crop it to one person first"
                )
            return to_rgb(image)
    except FileNotFoundError as error:
        raise DataError(f"no such image: {path}") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise DataError(f"cannot read image {path}: {_reason(error)}. Replace or remove it") from (
            error
        )


def to_rgb(image: Image.Image) -> Image.Image:
    """Any image as 8-bit RGB, upright as its EXIF orientation says; 16 bits are scaled to 8."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):  # convert() would clip 16 bits instead of scaling them
        values = np.asarray(upright).astype(np.uint32)
        upright = Image.fromarray((values >> 8).astype(np.uint8))
    return upright.convert("RGB")


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is not an image"
    return str(error) or type(error).__name__
