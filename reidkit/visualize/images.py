"""Images inside HTML pages, as data URLs."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

from reidkit.image import read_image


def data_url(image: Image.Image, *, quality: int = 80) -> str:
    """An image as JPEG in a data URL."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def thumbnail(file: Path, size: tuple[int, int]) -> str:
    """An image file as a data URL, reduced to fit into `size` (height, width), never enlarged.

    Raises:
        DataError: it cannot be read.
    """
    image = read_image(file)
    image.thumbnail((size[1], size[0]), Image.Resampling.LANCZOS)
    return data_url(image)
