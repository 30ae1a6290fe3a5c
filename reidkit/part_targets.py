"""Targets of the part-attention loss: soft part masks as IAUnet's authors compute them."""

# N images, P parts, H W of the stored masks, h w of the targets

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor


def part_targets(
    masks: Tensor,
    *,
    num_parts: int,
    input_size: Sequence[int],
    map_size: Sequence[int],
    source_sizes: Tensor | None = None,
) -> Tensor:
    """Targets of the part-attention loss, by the procedure of IAUnet's authors.

    They resize each part's mask of 0 and 255 at the image's own size by Pillow's bicubic to the
    network's input (width first, bytes after each step), divide by 255, and resize bilinearly with
    aligned corners to the map. Only the input pixels that the last step reads are computed.

    Args:
        masks: uint8 part indices [N, H, W], 0 background.
        input_size, map_size: (height, width) of the network's input and of the targets.
        source_sizes: int [N, 2] on the CPU, (height, width) of the masks before they were stretched
            or shrunk to [H, W] by nearest cells; None: they have their own size.
    Returns:
        float32 [N, P, *map_size] in [0, 1].
    """
    sizes = [list(masks.shape[1:])] if source_sizes is None else source_sizes.tolist()
    if all(size == sizes[0] for size in sizes):  # one matrix for all, and the smallest masks
        sizes = sizes[:1]
        if sizes[0][0] <= masks.shape[1] and sizes[0][1] <= masks.shape[2]:
            y, x = (_cells(sizes[0][k], masks.shape[k + 1]).to(masks.device) for k in (0, 1))
            masks = masks[:, y[:, None], x]
    N, H, _ = masks.shape
    (h, w), P = map_size, num_parts
    rows, columns = (
        torch.stack(
            [
                _bicubic_rows(size[k], masks.shape[k + 1], input_size[k], map_size[k])
                for size in sizes
            ]
        ).to(masks.device, non_blocking=True)  # [N or 1, 2h, H], [N or 1, 2w, W]
        for k in (0, 1)
    )
    y, x = (_bilinear_shares(input_size[k], map_size[k]).to(masks.device) for k in (0, 1))
    parts = torch.arange(1, P + 1, dtype=torch.uint8, device=masks.device).view(P, 1, 1)
    with torch.autocast(masks.device.type, enabled=False):
        planes = (masks[:, None] == parts) * 255.0  # [N, P, H, W]
        wide = _to_bytes(planes.flatten(1, 2) @ columns.mT)  # [N, P*H, W] -> [N, P*H, 2w]
        wide = wide.view(N, P, H, -1).transpose(1, 2).flatten(2)  # [N, H, P*2w]
        pixels = _to_bytes(rows @ wide).view(N, h, 2, P, w, 2)
        target = torch.einsum("nhapwb,ha,wb->nphw", pixels, y, x) / 255
        return target.clamp(max=1)  # rounding may exceed it


def _to_bytes(values: Tensor) -> Tensor:
    """Clipped and rounded as Pillow stores them; bicubic overshoots."""
    return (values.clamp(0, 255) + 0.5).floor()


@lru_cache(maxsize=512)  # images come in many sizes
def _bicubic_rows(source: int, stored: int, input_length: int, map_length: int) -> Tensor:
    """float32 [2 * map_length, stored]: Pillow's bicubic (a = -0.5, widened when it shrinks) from
    `source` pixels, each taken from the stored cell at its centre, to the two input pixels around
    each position of the map."""
    positions = _map_positions(input_length, map_length)
    pixels = torch.stack([positions.floor(), positions.ceil()], 1).flatten()
    scale = source / input_length
    centres = torch.arange(source, dtype=torch.float64) + 0.5
    d = (centres - (pixels[:, None] + 0.5) * scale).abs() / max(scale, 1.0)
    near, far = ((1.5 * d - 2.5) * d**2 + 1, ((-0.5 * d + 2.5) * d - 4) * d + 2)
    weights = torch.where(d < 1, near, torch.where(d < 2, far, 0.0))
    weights /= weights.sum(1, keepdim=True)
    matrix = torch.zeros(len(pixels), stored, dtype=torch.float64)
    return matrix.index_add_(1, _cells(source, stored), weights).float()


def _cells(source: int, stored: int) -> Tensor:
    """int64 [source]: the stored cell at the centre of each source pixel."""
    return ((torch.arange(source, dtype=torch.float64) + 0.5) * stored / source).long()


def _bilinear_shares(input_length: int, map_length: int) -> Tensor:
    """float32 [map_length, 2]: weights of the two input pixels around each position."""
    upper = _map_positions(input_length, map_length).frac()
    return torch.stack([1 - upper, upper], 1).float()


def _map_positions(input_length: int, map_length: int) -> Tensor:
    """float64 [map_length]: where a map's positions are in the input, corners aligned."""
    return torch.linspace(0, 1, map_length, dtype=torch.float64) * (input_length - 1)
