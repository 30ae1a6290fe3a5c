"""Training decodes with torchvision; its pixels agree with Pillow's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reidkit.data.decode import read_for_training
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
def test_training_pixels_differ_from_pillows_by_rounding_only(
    tmp_path: Path, size: tuple[int, int], scale: float, interpolation: str
) -> None:
    preprocess = Preprocess(interpolation=interpolation)  # type: ignore[arg-type]
    path = save_image(tmp_path / "a.jpg", size, quality=80)
    fast = preprocess.pixels(read_for_training(path), scale=scale).astype(int)
    exact = preprocess.pixels(read_image(path), scale=scale).astype(int)
    assert fast.shape == exact.shape
    assert np.abs(fast - exact).max() <= 2 and (fast != exact).mean() < 0.06


def test_test_time_pixels_are_bit_identical_to_pillows(tmp_path: Path) -> None:
    path = save_image(tmp_path / "a.jpg", (64, 128))
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB").resize((128, 256), Image.Resampling.BICUBIC))
    assert (Preprocess().pixels(read_image(path)) == expected).all()


def test_grey_images_png_files_and_bgr_order_agree_with_pillow(tmp_path: Path) -> None:
    Image.open(save_image(tmp_path / "a.jpg", (40, 80))).convert("L").save(tmp_path / "grey.jpg")
    save_image(tmp_path / "b.png", (40, 80))
    bgr = Preprocess(size=(80, 40), channels="bgr")
    for name in ("grey.jpg", "b.png", "a.jpg"):
        fast = bgr.pixels(read_for_training(tmp_path / name)).astype(int)
        exact = bgr.pixels(read_image(tmp_path / name)).astype(int)
        assert np.abs(fast - exact).max() <= 1


def test_broken_and_missing_files_are_refused_as_at_test_time(tmp_path: Path) -> None:
    whole = save_image(tmp_path / "a.jpg", (64, 128)).read_bytes()
    for name, data in (("cut.jpg", whole[:300]), ("text.jpg", b"no image"), ("none.jpg", b"")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=name):
            read_for_training(tmp_path / name)
    with pytest.raises(DataError, match="no such image"):
        read_for_training(tmp_path / "absent.jpg")


def test_without_torchvisions_decoder_pillow_decodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_image(tmp_path / "a.jpg", (64, 128))
    before = read_for_training(path)

    def missing(encoded: torch.Tensor) -> torch.Tensor:
        raise ImportError("no decode_jpeg in torchvision.io")

    monkeypatch.setattr("reidkit.data.decode._decode_jpeg", missing)
    assert torch.equal(read_for_training(path), before)
