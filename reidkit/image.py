"""The one image reader: upright, with one pixel cap and errors that name the file."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from reidkit.errors import DataError
from reidkit.files import check_regular

# Of corrupt EXIF data and unusual palettes; what keeps an image from being read is an error.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

MAX_PIXELS = 64_000_000
"""Images above this many pixels are refused before they are decoded."""

_TRANSPOSED = (5, 6, 7, 8)
"""EXIF orientations that swap height and width."""


@contextlib.contextmanager
def open_image(
    source: Path | IO[bytes],
    *,
    name: str = "",
    max_pixels: int | None = None,
    formats: tuple[str, ...] | None = None,
    advice: str = "Crop it to one person first",
) -> Iterator[Image.Image]:
    """An image as stored, its header read and its pixels not yet decoded.

    Errors of decoding inside the `with` block are reported like those of opening.

    Args:
        name: of the image in messages; by default its path.
        max_pixels: refuse larger images; by default MAX_PIXELS.
        formats: of Pillow that are accepted, and named in the error; by default all.
        advice: what to do about an image above the cap, in the error.
    Raises:
        DataError: if the file is missing, is not a regular file or not an image, has another
            format, is truncated, or is above the cap.
    """
    shown = name or f"image {source}"
    name = name or str(source)
    cap = MAX_PIXELS if max_pixels is None else max_pixels
    if isinstance(source, Path):
        check_regular(source, DataError)
    try:
        with Image.open(source, formats=formats) as image:
            width, height = image.size
            if width * height > cap:
                raise DataError(
                    f"{name}: {width}x{height} pixels, more than the cap of {cap:,}. {advice}"
                )
            yield image
    except FileNotFoundError as error:
        raise DataError(f"no such image: {name}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{name}: more pixels than the cap of {cap:,}. {advice}") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, MemoryError) as error:
        # Pillow raises the last three for some broken headers and chunks
        reason = _reason(error, formats)
        raise DataError(f"cannot read {shown}: {reason}. Replace or remove it") from error


def read_image(path: Path) -> Image.Image:
    """A fully decoded RGB image, upright.

    Raises:
        DataError: as `open_image`.
    """
    with open_image(path) as image:
        return to_rgb(image)


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) in pixels of the upright image, from the header alone where EXIF permits.

    Raises:
        DataError: as `open_image`.
    """
    with open_image(path) as image:
        if image.format == "TIFF":  # Pillow turns these upright itself, some versions while loading
            image.load()
            return image.height, image.width
        transposed = image.getexif().get(ExifTags.Base.Orientation) in _TRANSPOSED
        return image.size if transposed else (image.height, image.width)


def to_rgb(image: Image.Image) -> Image.Image:
    """Any image as 8-bit RGB, upright as its EXIF orientation says; 16 bits are scaled to 8."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):  # convert() would clip 16 bits instead of scaling them
        values = np.asarray(upright).astype(np.uint32)
        upright = Image.fromarray((values >> 8).astype(np.uint8))
    return upright.convert("RGB")


def _reason(error: Exception, formats: tuple[str, ...] | None) -> str:
    """Pillow's error in our words; `formats` as in `open_image`."""
    if isinstance(error, UnidentifiedImageError):
        return f"its format is none of {', '.join(formats)}" if formats else "it is not an image"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return "it is truncated" if "truncated" in str(error).lower() else "it is damaged"
