"""Preprocessing is Pillow's resize and one normalisation for every command."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reidkit.errors import DataError
from reidkit.image import read_image
from reidkit.preprocess import Preprocess


def random_image(height: int = 40, width: int = 20) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


@pytest.mark.parametrize(
    ("name", "filter_"),
    [("bicubic", Image.Resampling.BICUBIC), ("bilinear", Image.Resampling.BILINEAR)],
)
def test_resizing_is_bit_identical_to_pillows(name: str, filter_: Image.Resampling) -> None:
    found = Preprocess(size=(64, 32), interpolation=name).pixels(random_image())  # type: ignore[arg-type]
    assert (found == np.asarray(random_image().resize((32, 64), filter_))).all()


def test_normalisation_subtracts_the_mean_and_divides_by_the_standard_deviation() -> None:
    preprocess = Preprocess(size=(2, 1), mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.125))
    pixels = torch.tensor([[[[0, 51, 255]], [[255, 0, 102]]]], dtype=torch.uint8)
    expected = [[-0.2, 1.8], [0.0, -0.8], [5.6, 0.8]]
    found = preprocess.normalise(pixels)[0, :, :, 0]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_normalising_in_numpy_equals_normalising_in_torch_bit_by_bit() -> None:
    preprocess = Preprocess(size=(16, 16))
    every_value = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    pixels = np.concatenate([every_value, 255 - every_value]).repeat(3, axis=3)  # [2, 16, 16, 3]
    expected = preprocess.normalise(torch.from_numpy(pixels)).numpy()
    channels_first = np.empty((2, 3, 16, 16), np.float32)
    preprocess.normalise_into(pixels, channels_first)
    channels_last = np.empty((2, 16, 16, 3), np.float32)
    preprocess.normalise_into(pixels, channels_last.transpose(0, 3, 1, 2))
    assert (channels_first == expected).all()
    assert (channels_last == expected.transpose(0, 2, 3, 1)).all()


def test_bgr_networks_get_bgr_channels() -> None:
    rgb = Preprocess(size=(40, 20)).pixels(random_image())
    bgr = Preprocess(size=(40, 20), channels="bgr").pixels(random_image())
    assert (bgr == rgb[..., ::-1]).all()


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_any_image_is_read_as_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / f"image.{'jpg' if mode in ('L', 'CMYK') else 'png'}"
    random_image().convert(mode).save(path)
    assert read_image(path).mode == "RGB"


def test_broken_images_raise_one_error_with_the_path(tmp_path: Path) -> None:
    whole = tmp_path / "whole.jpg"
    random_image(200, 100).save(whole)
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    text = tmp_path / "text.jpg"
    text.write_text("not an image")
    for path, reason in (
        (cut, "truncated"),
        (text, "not an image"),
        (tmp_path / "no.jpg", "no such"),
    ):
        with pytest.raises(DataError, match=reason) as caught:
            read_image(path)
        assert str(path) in str(caught.value)


def test_an_image_above_the_pixel_cap_is_refused_before_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reidkit.image.MAX_PIXELS", 799)
    random_image().save(tmp_path / "large.png")
    with pytest.raises(DataError, match="20x40 pixels, more than the cap of 799"):
        read_image(tmp_path / "large.png")


def test_sixteen_bit_images_are_scaled_to_eight_bits_and_not_clipped(tmp_path: Path) -> None:
    grey = np.linspace(0, 65535, 64 * 32).reshape(64, 32).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "deep.png")
    found = np.asarray(read_image(tmp_path / "deep.png"))
    assert (found == (grey >> 8).astype(np.uint8)[..., None]).all()


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to see it upright
    random_image().save(tmp_path / "phone.png", exif=exif)
    found = read_image(tmp_path / "phone.png")
    assert found.size == (40, 20)
    assert (np.asarray(found) == np.rot90(np.asarray(random_image()), k=-1)).all()
