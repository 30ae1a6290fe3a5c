"""Images as tensors, resized by torch: their pixels agree with Pillow's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from reidkit.data.decode import read_tensor, to_tensor
from reidkit.errors import DataError
from reidkit.image import read_image
from reidkit.preprocess import Preprocess


def save_image(path: Path, size: tuple[int, int], **options: object) -> Path:
    rng = np.random.default_rng(size[0])
    small = Image.fromarray(rng.integers(0, 256, (9, 5, 3), np.uint8))
    small.resize(size, Image.Resampling.BICUBIC).save(path, **options)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("scale", [1.0, 1.125])
@pytest.mark.parametrize("size", [(64, 128), (60, 160), (130, 301), (31, 20)])
def test_torchvisions_pixels_differ_from_pillows_by_rounding_only(
    tmp_path: Path, size: tuple[int, int], scale: float, interpolation: str
) -> None:
    preprocess = Preprocess(interpolation=interpolation)  # type: ignore[arg-type]
    path = save_image(tmp_path / "a.jpg", size, quality=80)
    fast = preprocess.pixels(read_tensor(path), scale=scale).astype(int)
    exact = preprocess.pixels(read_image(path), scale=scale).astype(int)
    assert fast.shape == exact.shape
    assert np.abs(fast - exact).max() <= 2 and (fast != exact).mean() < 0.06


@pytest.mark.parametrize("size", [(65, 278), (141, 361), (64, 500), (60, 160), (200, 90)])
def test_contrasts_that_overshoot_differ_by_rounding_only(size: tuple[int, int]) -> None:
    """Rows are resized before columns whatever order Pillow prefers: the results of bicubic
    interpolation differ by up to 32 grey levels between black and white, where they are clipped."""
    W, H = size
    pixels = np.random.default_rng(W).integers(0, 2, (H, W, 3), np.uint8) * np.uint8(255)
    image = Image.fromarray(pixels)
    exact = Preprocess().pixels(image).astype(int)
    assert np.abs(Preprocess().pixels(to_tensor(image)).astype(int) - exact).max() <= 2
    rows = image.resize((128, H), Image.Resampling.BICUBIC)
    assert (exact == np.asarray(rows.resize((128, 256), Image.Resampling.BICUBIC))).all()


@pytest.mark.parametrize("as_tensor", [False, True])
def test_an_image_of_extreme_height_is_resized_without_gigabytes(
    as_tensor: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows alone, 128 pixels wide, would take more than the image by that factor."""
    sizes: list[tuple[int, int]] = []
    resize = Image.Image.resize

    def record(image: Image.Image, size: tuple[int, int], *arguments: Any) -> Image.Image:
        sizes.append(size)
        return resize(image, size, *arguments)

    monkeypatch.setattr(Image.Image, "resize", record)
    image = Image.new("RGB", (1, 20_000), (255, 0, 51))
    found = Preprocess().pixels(to_tensor(image) if as_tensor else image)
    assert sizes == [(1, 256), (128, 256)]
    assert (found == [255, 0, 51]).all()


def test_pixels_of_evaluation_are_bit_identical_to_pillows(tmp_path: Path) -> None:
    path = save_image(tmp_path / "a.jpg", (64, 128))
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB").resize((128, 256), Image.Resampling.BICUBIC))
    assert (Preprocess().pixels(read_image(path)) == expected).all()


def test_grey_images_png_files_and_bgr_order_agree_with_pillow(tmp_path: Path) -> None:
    Image.open(save_image(tmp_path / "a.jpg", (40, 80))).convert("L").save(tmp_path / "grey.jpg")
    save_image(tmp_path / "b.png", (40, 80))
    bgr = Preprocess(size=(80, 40), channels="bgr")
    for name in ("grey.jpg", "b.png", "a.jpg"):
        fast = bgr.pixels(read_tensor(tmp_path / name)).astype(int)
        exact = bgr.pixels(read_image(tmp_path / name)).astype(int)
        assert np.abs(fast - exact).max() <= 1


def test_broken_and_missing_files_are_refused_as_at_test_time(tmp_path: Path) -> None:
    whole = save_image(tmp_path / "a.jpg", (64, 128)).read_bytes()
    for name, data in (("cut.jpg", whole[:300]), ("text.jpg", b"no image"), ("none.jpg", b"")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=name):
            read_tensor(tmp_path / name)
    with pytest.raises(DataError, match="no such image"):
        read_tensor(tmp_path / "absent.jpg")


def test_without_torchvisions_decoder_pillow_decodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_image(tmp_path / "a.jpg", (64, 128))
    before = read_tensor(path)

    def missing(encoded: torch.Tensor) -> torch.Tensor:
        raise ImportError("no decode_jpeg in torchvision.io")

    monkeypatch.setattr("reidkit.data.decode._decode_jpeg", missing)
    assert torch.equal(read_tensor(path), before)
