"""Opening pictures that somebody else made: with a pixel cap, and errors that name the file."""

# H W pixels

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from reidkit.errors import DataError

MAX_PIXELS = 16_000_000
"""Larger images are refused before they are decoded; a detector's box has some 10,000 pixels."""


def open_image(path: Path) -> Image.Image:
    """The image, its header read and its pixels not yet.

    Raises:
        DataError: if it is missing, no image, or has more than MAX_PIXELS.
    """
    try:
        image = Image.open(path)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; expected an image") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise DataError(_too_large(path)) from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        # Pillow raises the last two for some broken headers
        raise DataError(f"{path}: not a readable image ({_short(error)})") from error
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise DataError(_too_large(path))
    return image


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) in pixels, from the header alone. Raises DataError like `open_image`."""
    with open_image(path) as image:
        return image.height, image.width


def image_format(path: Path) -> str:
    """Pillow's name of the file format: "PNG", "JPEG". Raises DataError like `open_image`."""
    with open_image(path) as image:
        return image.format or ""


def read_pixels(path: Path, *, modes: tuple[str, ...], expected: str) -> npt.NDArray[np.uint8]:
    """Pixels uint8 [H, W] or [H, W, 3] as stored; a palette image gives its indices.

    Args:
        modes: Pillow modes that may be read as they are.
        expected: what the picture should be, for the message when its mode is another.

    Raises:
        DataError: if it cannot be read, is truncated, or is of another mode.
    """
    with open_image(path) as image:
        if image.mode not in modes:
            raise DataError(f"{path}: a picture of mode {image.mode}, expected {expected}")
        try:
            return np.asarray(image)
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(f"{path}: damaged or truncated image ({_short(error)})") from error


def read_rgb(path: Path) -> npt.NDArray[np.uint8]:
    """Any image as RGB, uint8 [H, W, 3]. Raises DataError like `read_pixels`."""
    with open_image(path) as image:
        try:
            return np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(f"{path}: damaged or truncated image ({_short(error)})") from error


def _too_large(path: Path) -> str:
    return f"{path}: more than {MAX_PIXELS // 1_000_000} megapixels; expected a picture of a person"


def _short(error: BaseException) -> str:
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__
