"""Text in pictures: the font, and shortening to a width."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from PIL import ImageFont


def shortened(text: str, face: ImageFont.FreeTypeFont, width: int) -> str:
    """Text that fits `width` pixels; what is too long loses its beginning, since the ends of paths
    differ."""
    if face.getlength(text) <= width:
        return text
    while text and face.getlength("\u2026" + text) > width:
        text = text[1:]
    return "\u2026" + text


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along."""
    from matplotlib import get_data_path

    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)
