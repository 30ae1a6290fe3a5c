"""Augmentation is sampled from one seed and applied to image and mask alike."""

import numpy as np
import pytest
import torch
from PIL import Image

from reidkit.config import AugmentConfig
from reidkit.data.transforms import (
    Augmentation,
    augment_image,
    augment_mask,
    erase,
    erase_noise,
    sample_augmentation,
    sample_erasing,
)
from reidkit.preprocess import Preprocess

SIZE = (32, 16)
PLAIN = Preprocess(size=SIZE, interpolation="bilinear")


def random_image() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8))


def test_an_image_of_the_input_size_is_unchanged() -> None:
    kept = augment_image(random_image(), Augmentation(None, False, (0, 0, 0, 0)), PLAIN, 1.0)
    assert (kept == np.asarray(random_image())).all()


def test_flip_mirrors_image_and_mask_together() -> None:
    augmentation = Augmentation(None, True, (0, 0, 0, 0))
    flipped = augment_image(random_image(), augmentation, PLAIN, 1.0)
    assert (flipped == np.asarray(random_image())[:, ::-1]).all()
    mask = np.arange(8, dtype=np.uint8).reshape(2, 4)
    assert (augment_mask(mask, augmentation, SIZE, 1.0) == mask[:, ::-1]).all()


def test_image_and_mask_are_cropped_alike() -> None:
    """A mask at the image's own size, cropped, is the image's own crop."""
    plane = np.zeros(SIZE, np.uint8)
    plane[10:20, 4:9] = 200
    grey = Image.fromarray(np.repeat(plane[..., None], 3, 2))
    augmentation = Augmentation((3, 1), False, (0, 0, 0, 0))
    pixels = augment_image(grey, augmentation, PLAIN, 1.125)[..., 0]
    mask = augment_mask((plane > 0).astype(np.uint8), augmentation, SIZE, 1.125)
    agree = (pixels > 100) == (mask > 0)
    assert pixels.shape == mask.shape == SIZE
    assert agree.mean() > 0.97  # only edges may differ by half a pixel


def test_erasing_follows_its_definition() -> None:
    """Area uniform in 2 to 40 %, aspect in 0.3 to 3.33, always strictly inside."""
    rng = np.random.default_rng(1)
    boxes = np.array(
        [sample_erasing((0.02, 0.4), (0.3, 1 / 0.3), (256, 128), rng) for _ in range(4000)]
    )
    top, left, height, width = boxes.T
    assert (height < 256).all() and (width < 128).all() and (height > 0).all()
    assert (top >= 0).all() and (top + height <= 256).all() and (left + width <= 128).all()
    area, aspect = height * width / (256 * 128), height / width
    assert 0.019 < area.min() < 0.03 and 0.35 < area.max() < 0.41
    assert 0.29 < aspect.min() < 0.4 and 3.0 < aspect.max() < 3.45
    # boxes too wide for the image are rejected, so that large ones are tall
    assert aspect[area > 0.3].mean() > aspect[area < 0.05].mean()


def test_an_image_too_small_for_any_box_is_not_erased() -> None:
    assert sample_erasing((0.4, 0.4), (1.0, 1.0), (1, 1), np.random.default_rng(0)) == (0, 0, 0, 0)


def test_erase_fills_only_the_box() -> None:
    images = torch.zeros(2, 3, 6, 5)
    boxes = torch.tensor([[1, 2, 3, 2], [0, 0, 0, 0]])
    filled = erase(images, boxes, (1.0, 2.0, 3.0))
    expected = images.clone()
    expected[0, :, 1:4, 2:4] = torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1)
    assert torch.equal(filled, expected)
    assert images.abs().sum() == 0  # arguments are not changed


def test_noise_depends_on_the_sample_alone_and_fills_only_the_box() -> None:
    boxes = torch.tensor([[1, 2, 40, 30], [0, 0, 0, 0], [5, 5, 8, 8]])
    shape, seeds = torch.Size([3, 3, 64, 32]), [(0, 1, 2), (0, 1, 3), (0, 1, 4)]
    noise = erase_noise(shape, boxes, seeds)
    alone = erase_noise(torch.Size([1, 3, 64, 32]), boxes[:1], seeds[:1])
    assert torch.equal(noise[:1], alone)  # whatever else is in the batch
    assert noise[1].abs().sum() == 0
    inside = noise[0, :, 1:41, 2:32]
    assert abs(inside.mean()) < 0.1 and abs(inside.std() - 1) < 0.1
    filled = erase(torch.full(shape, 7.0), boxes, (0, 0, 0), noise)
    assert torch.equal(filled[0, :, 1:41, 2:32], inside) and (filled[1] == 7).all()
    assert (filled[0] == 7).sum() == 3 * (64 * 32 - 40 * 30)


def test_a_padded_crop_shifts_image_and_mask_alike_and_is_black_outside() -> None:
    config = AugmentConfig(crop="pad", crop_probability=1.0, crop_scale=1.0, crop_padding=3)
    corners = {
        sample_augmentation(config, SIZE, np.random.default_rng(seed)).crop for seed in range(400)
    }
    assert corners == {(top, left) for top in range(-3, 4) for left in range(-3, 4)}
    moved = Augmentation((-3, 2), False, (0, 0, 0, 0))
    pixels = augment_image(random_image(), moved, PLAIN, 1.0)
    assert (pixels[:3] == 0).all() and (pixels[:, -2:] == 0).all()
    assert (pixels[3:, :-2] == np.asarray(random_image())[:-3, 2:]).all()
    mask = np.random.default_rng(3).integers(1, 5, SIZE, np.uint8)
    moved_mask = augment_mask(mask, moved, SIZE, 1.0)
    assert (moved_mask[3:, :-2] == mask[:-3, 2:]).all()
    assert (moved_mask[:3] == 0).all() and (moved_mask[:, -2:] == 0).all()


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_probabilities_of_zero_and_one_are_certain(probability: float) -> None:
    config = AugmentConfig(
        flip=probability, erase=probability, crop="translate", crop_probability=probability
    )
    for seed in range(20):
        sampled = sample_augmentation(config, SIZE, np.random.default_rng(seed))
        happened = [sampled.flip, sampled.crop is not None, sampled.erase[2] > 0]
        assert happened == [bool(probability)] * 3


def test_the_same_seed_gives_the_same_augmentation() -> None:
    config = AugmentConfig(crop="translate")
    first, second = (
        [sample_augmentation(config, SIZE, np.random.default_rng([0, 1, n])) for n in range(50)]
        for _ in range(2)
    )
    assert first == second and len(set(first)) > 30
