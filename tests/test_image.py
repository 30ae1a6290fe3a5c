"""The one image reader: upright, capped, with errors that name the file."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reidkit.errors import DataError
from reidkit.image import MAX_PIXELS, image_size, open_image, read_image

ORIENTATION = 0x0112


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_size_and_pixels_are_upright(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = tmp_path / f"image.{suffix}"
    Image.new("RGB", (40, 90)).save(path, exif=exif)
    expected = (90, 40) if orientation <= 4 else (40, 90)
    assert image_size(path) == expected
    assert np.asarray(read_image(path)).shape == (*expected, 3)


def test_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    for read in (read_image, image_size):
        with pytest.raises(DataError, match=f"no such image: {path}"):
            read(path)
    path.write_bytes(b"text")
    with pytest.raises(DataError, match=f"cannot read image {path}: it is not an image"):
        read_image(path)
    Image.effect_noise((64, 64), 50).save(path)
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(DataError, match=f"cannot read image {path}: .*truncated"):
        read_image(path)


def test_images_above_the_cap_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.new("1", (8001, 8000)).save(path)
    assert MAX_PIXELS == 8000 * 8000
    with (
        pytest.raises(DataError, match="8001x8000 pixels, more than the cap of 64,000,000"),
        open_image(path),
    ):
        pytest.fail("opened")
