import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from reidkit.masks import grid


def authors_target(part_map: np.ndarray, num_parts: int, size: tuple[int, int]) -> torch.Tensor:
    """Independent: masks of 0/255 through Pillow's bicubic resize, /255, torch's bilinear."""
    planes = []
    for part in range(1, num_parts + 1):
        mask = Image.fromarray(((part_map == part) * 255).astype(np.uint8))
        planes.append(np.asarray(mask.resize((128, 256), Image.Resampling.BICUBIC)))
    stack = torch.from_numpy(np.stack(planes)).float()[None] / 255
    return F.interpolate(stack, size=size, mode="bilinear", align_corners=True)[0]


def stored_map(part_map: np.ndarray, num_parts: int) -> torch.Tensor:
    values = grid.sample_points(part_map, num_labels=num_parts + 1)
    index = grid.spread_index(grid.GRIDS, grid.MAP_SIZE)
    return torch.from_numpy(values[index].reshape(grid.MAP_SIZE))


def loss_target(part_map: torch.Tensor, num_parts: int, size: tuple[int, int]) -> torch.Tensor:
    """What the trainer makes of a stored map."""
    planes = F.one_hot(part_map.long(), num_parts + 1).permute(2, 0, 1)[None, 1:].float()
    return F.interpolate(planes, size=size, mode="bilinear", align_corners=True)[0]


@pytest.mark.parametrize("length", [32, 48, 100, 128, 256, 511])
@pytest.mark.parametrize("target", [32, 16, 8])
def test_the_resize_matrix_is_pillows_bicubic_then_torchs_bilinear(length: int, target: int):
    column = np.random.default_rng(length).random((length, 1), np.float32)
    resized = Image.fromarray(column).resize((1, 256), Image.Resampling.BICUBIC)
    tensor = torch.from_numpy(np.array(resized))[None, None]
    expected = F.interpolate(tensor, size=(target, 1), mode="bilinear", align_corners=True)
    found = grid.resize_matrix(length, 256, target) @ column
    np.testing.assert_allclose(found, expected[0, 0].numpy(), atol=2e-5)


def test_grids_share_no_point_but_their_common_ones():
    # 32x16 and 16x8 meet in the 4 corners; 8x4 adds what neither has
    assert grid.num_points(((32, 16),)) == 512
    assert grid.num_points(((32, 16), (16, 8))) == 512 + 128 - 4
    assert grid.row_bytes(grid.GRIDS, 5) == 220


@pytest.mark.parametrize(("labels", "cells"), [(2, 8), (5, 3), (6, 3), (7, 2), (16, 2), (17, 1)])
def test_a_byte_holds_as_many_digits_as_fit(labels: int, cells: int):
    assert grid.cells_per_byte(labels) == cells


@pytest.mark.parametrize("labels", [2, 3, 5, 6, 9, 16])
def test_packing_loses_nothing(labels: int):
    values = np.random.default_rng(labels).integers(0, labels, (7, 101), np.uint8)
    packed = grid.pack(values, num_labels=labels)
    table = grid.unpack_table(labels)
    np.testing.assert_array_equal(table[packed].reshape(7, -1)[:, :101], values)


def test_bytes_that_no_packing_writes_still_give_existing_parts():
    assert grid.unpack_table(5).max() == 4


@pytest.mark.parametrize("size", [(128, 64), (256, 128), (100, 48), (511, 233)])
@pytest.mark.parametrize(("target", "loss"), [((32, 16), 1e-4), ((16, 8), 1.3e-3), ((8, 4), 1e-4)])
def test_targets_from_the_store_are_as_near_the_authors_as_part_indices_can_be(
    draw, size, target, loss
):
    rng = np.random.default_rng(1)
    ours, best = 0.0, 0.0
    for _ in range(12):
        part_map = draw(rng, size)
        authors = authors_target(part_map, 4, target)
        difference = loss_target(stored_map(part_map, 4), 4, target) - authors
        ours += float(difference.abs().mean())
        best += float(torch.minimum(authors, 1 - authors).mean())
    assert ours / 12 <= best / 12 + loss


def test_at_the_second_stage_the_stored_part_is_the_authors_strongest(draw):
    part_map = draw(np.random.default_rng(3), (128, 64))
    authors = authors_target(part_map, 4, (32, 16))
    background = 1 - authors.sum(dim=0, keepdim=True)
    shares = torch.cat([background, authors])
    ours = stored_map(part_map, 4)[::2, ::2].long()
    strongest = shares.gather(0, ours[None])[0]
    assert (shares.amax(dim=0) - strongest).max() <= 2 / 255  # Pillow rounds to whole bytes


def test_mirroring_a_stored_map_is_storing_the_mirrored_mask(draw):
    part_map = draw(np.random.default_rng(5), (128, 64))
    plain, mirrored = stored_map(part_map, 4), stored_map(part_map[:, ::-1].copy(), 4)
    for target in grid.GRIDS:
        once = loss_target(plain.flip(1), 4, target)
        again = loss_target(mirrored, 4, target)
        assert (once - again).abs().mean() < 0.004  # ties between equal shares aside
