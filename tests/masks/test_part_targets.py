"""Targets of the part-attention loss against the procedure of IAUnet's authors."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from toy_masks import make_part_map

from reidkit.config import AugmentConfig
from reidkit.data.transforms import augment_image, augment_mask, sample_augmentation
from reidkit.losses import part_attention
from reidkit.masks.writer import STORED_SIZE, stored_map
from reidkit.part_targets import part_targets
from reidkit.preprocess import Preprocess

Size = tuple[int, int]
MAPS: list[tuple[Size, Size]] = [
    # network's input, attention map
    ((256, 128), (64, 32)),
    ((256, 128), (32, 16)),
    ((256, 128), (16, 8)),
    ((128, 64), (32, 16)),
    ((128, 64), (8, 4)),
    ((384, 128), (96, 32)),
    ((384, 128), (24, 8)),
    ((64, 32), (16, 8)),
]


def authors_target(part_map: np.ndarray, input_size: Size, map_size: Size) -> torch.Tensor:
    """Independent: masks of 0/255 through Pillow's bicubic resize, /255, torch's bilinear.

    Two calls keep Pillow at width first, as releases up to 12 resize; 13 may choose height first.
    """
    planes = []
    for part in range(1, 5):
        mask = Image.fromarray(((part_map == part) * 255).astype(np.uint8))
        for size in ((input_size[1], mask.height), (input_size[1], input_size[0])):
            mask = mask.resize(size, Image.Resampling.BICUBIC)
        planes.append(np.asarray(mask))
    stack = torch.from_numpy(np.stack(planes)).float()[None] / 255
    return F.interpolate(stack, size=map_size, mode="bilinear", align_corners=True)[0]


def loss_target(part_map: np.ndarray, input_size: Size, map_size: Size) -> torch.Tensor:
    """Through the stored map, as in training."""
    return part_targets(
        torch.from_numpy(stored_map(part_map, num_parts=4))[None],
        num_parts=4,
        input_size=input_size,
        map_size=map_size,
        source_sizes=torch.tensor([part_map.shape]),
    )[0]


@pytest.mark.parametrize(
    "size", [(60, 30), (128, 64), (100, 48), (256, 128), (400, 117), (400, 200)]
)
@pytest.mark.parametrize(("input_size", "map_size"), MAPS)
def test_targets_of_images_up_to_400x200_are_the_authors(size, input_size, map_size):
    part_map = make_part_map(np.random.default_rng(1), size)
    ours, theirs = (f(part_map, input_size, map_size) for f in (loss_target, authors_target))
    assert (ours - theirs).abs().max() <= 1.1 / 255  # a tie may be rounded the other way
    assert (ours - theirs).abs().sum() <= 5e-4 * theirs.sum()


@pytest.mark.parametrize("size", [(433, 131), (450, 225), (511, 233), (800, 400)])
@pytest.mark.parametrize(("input_size", "map_size"), MAPS)
def test_targets_of_larger_images_are_within_2_percent_of_the_authors(size, input_size, map_size):
    rng = np.random.default_rng(1)
    difference = mass = 0.0
    for _ in range(12):
        part_map = make_part_map(rng, size)
        theirs = authors_target(part_map, input_size, map_size)
        difference += float((loss_target(part_map, input_size, map_size) - theirs).abs().sum())
        mass += float(theirs.sum())
    assert difference <= 0.02 * mass


def test_images_of_several_sizes_share_a_batch():
    rng = np.random.default_rng(2)
    part_maps = [make_part_map(rng, size) for size in ((128, 64), (60, 30), (400, 200))]
    together = part_targets(
        torch.from_numpy(np.stack([stored_map(m, num_parts=4) for m in part_maps])),
        num_parts=4,
        input_size=(256, 128),
        map_size=(16, 8),
        source_sizes=torch.tensor([m.shape for m in part_maps]),
    )
    alone = torch.stack([loss_target(m, (256, 128), (16, 8)) for m in part_maps])
    torch.testing.assert_close(together, alone, atol=1.1 / 255, rtol=0)


def test_without_source_sizes_masks_have_their_own_size():
    part_map = make_part_map(np.random.default_rng(3), (128, 64))
    ours = part_targets(
        torch.from_numpy(part_map)[None], num_parts=4, input_size=(256, 128), map_size=(32, 16)
    )
    torch.testing.assert_close(ours[0], loss_target(part_map, (256, 128), (32, 16)))


def test_mirroring_a_stored_map_mirrors_its_targets():
    stored = stored_map(make_part_map(np.random.default_rng(5), (128, 64)), num_parts=4)
    once, mirrored = (
        part_targets(
            torch.from_numpy(m.copy())[None],
            num_parts=4,
            input_size=(256, 128),
            map_size=(32, 16),
            source_sizes=torch.tensor([[128, 64]]),
        )
        for m in (stored, stored[:, ::-1])
    )
    torch.testing.assert_close(once.flip(3), mirrored, atol=1.1 / 255, rtol=0)


@pytest.mark.parametrize("size", [(128, 64), (100, 48), (400, 200)])
def test_crop_and_flip_keep_a_stored_map_aligned_with_its_image(size: Size):
    """The image is the mask of one part, so that its pixels are the target at the input's size."""
    config = AugmentConfig(crop="translate", crop_probability=1.0, erase=0.0)
    preprocess = Preprocess(size=(256, 128))
    rng = np.random.default_rng(7)
    part_map = (make_part_map(rng, size) == 2).astype(np.uint8)
    image = Image.fromarray(part_map * 255).convert("RGB")
    stored = stored_map(part_map, num_parts=1)
    for seed in range(8):
        sampled = sample_augmentation(config, (256, 128), np.random.default_rng(seed))
        pixels = augment_image(image, sampled, preprocess, config.crop_scale)[..., 0] / 255
        mask = augment_mask(stored, sampled, (256, 128), config.crop_scale)
        target = part_targets(
            torch.from_numpy(mask.copy())[None],
            num_parts=1,
            input_size=(256, 128),
            map_size=(256, 128),
            source_sizes=torch.tensor([size]),
        )[0, 0].numpy()
        assert abs(pixels - target).sum() < 0.06 * pixels.sum()
        for shift in ((0, 2), (0, -2), (2, 0), (-2, 0)):  # no shift fits better
            moved = np.roll(target, shift, axis=(0, 1))
            assert abs(pixels - target).sum() < abs(pixels - moved).sum()


def test_a_cell_of_a_larger_image_keeps_the_majority_of_its_pixels():
    large = np.zeros((800, 400), np.uint8)
    large[:3, :3] = 3  # 4 of the 4 pixels of the first cell, 1 of the 4 of its diagonal neighbour
    stored = stored_map(large, num_parts=4)
    assert stored.shape == STORED_SIZE and stored[0, 0] == 3 and stored[1, 1] == 0


def test_the_loss_computes_in_float32_under_autocast():
    part_map = make_part_map(np.random.default_rng(5), (128, 64))
    masks = torch.from_numpy(part_map)[None]
    maps = torch.rand(1, 4, 16, 8)
    expected = part_attention((maps,), masks, (256, 128))
    with torch.autocast("cpu", torch.bfloat16):
        found = part_attention((maps,), masks, (256, 128))
    assert found.dtype == torch.float32 and torch.equal(found, expected)
