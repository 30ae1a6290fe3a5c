"""Losses, each one function, and the weighted sum that a recipe asks for.

All are computed in float32, also under autocast.
"""

# B batch, T frames, D embedding, C classes, P parts, h w feature map

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from reidkit.config import LossConfig
from reidkit.types import Batch, ModelOutput

Gather = Callable[[Tensor], Tensor]
"""The batches [B, ...] of all processes in a row, this process's own part with its gradient."""


def compute_losses(
    output: ModelOutput,
    batch: Batch,
    weights: LossConfig,
    *,
    gather: Gather = lambda local: local,
) -> dict[str, Tensor]:
    """Every term with a weight above 0, unweighted, and "total", their weighted sum: scalars.

    Args:
        gather: what the triplets' positives and negatives are taken from, where several processes
            share a batch; the other terms are means over samples and need nothing from others.
    """
    terms: dict[str, Tensor] = {}
    for name, logits, reduce in (
        ("identity", output.logits, torch.mean),
        ("parts_identity", output.part_logits, torch.sum),
        ("deep", output.deep_logits, torch.sum),
    ):
        if getattr(weights, name) > 0 and logits:
            each = [cross_entropy(x, batch.labels, smoothing=weights.smoothing) for x in logits]
            terms[name] = reduce(torch.stack(each))
    if weights.triplet > 0:
        terms["triplet"] = batch_hard_triplet(
            output.features,
            batch.labels,
            margin=None if weights.soft_margin else weights.margin,
            distance=weights.distance,
            gather=gather,
        )
    if weights.part_attention > 0 and batch.masks is not None:
        terms["part_attention"] = part_attention(
            output.part_maps, batch.masks, batch.images.shape[-2:], batch.mask_sizes
        )
    if weights.overlap > 0:
        terms["overlap"] = overlap(output.class_maps, batch.labels)
    terms["total"] = torch.stack([getattr(weights, k) * v for k, v in terms.items()]).sum()
    return terms


def cross_entropy(logits: Tensor, labels: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Mean cross entropy with targets (1 - smoothing) * onehot + smoothing / C.

    Args:
        logits: [B, C].
        labels: int64 [B].
    Returns:
        scalar, float32 or wider.
    """
    return F.cross_entropy(_wide(logits), labels, label_smoothing=smoothing)


def batch_hard_triplet(
    features: Tensor,
    labels: Tensor,
    *,
    margin: float | None,
    distance: Literal["cosine", "euclidean"],
    gather: Gather = lambda local: local,
) -> Tensor:
    """Batch-hard triplet loss, Hermans et al. 2017, eq. 5; mean over anchors.

    relu(margin + max d(anchor, same id) - min d(anchor, other id)); softplus without a margin.
    Cosine distance is -cos (IAUnet eq. 16), Euclidean sqrt(max(d², 1e-12)) as RGA's code has it.
    The anchor counts as its own positive, which changes nothing where it has another.

    Args:
        features: [B, D].
        labels: int64 [B]; a batch with one identity has no negative and gives 0.
        gather: anchors are the B local features, positives and negatives are gathered ones.
    Returns:
        scalar, float32 or wider.
    """
    features = _wide(features)
    with torch.autocast(features.device.type, enabled=False):
        distances = _pairwise(features, gather(features), distance)  # [B, D] -> [B, all]
    same = labels[:, None] == gather(labels)[None]
    farthest = distances.masked_fill(~same, -torch.inf).amax(1)
    nearest = distances.masked_fill(same, torch.inf).amin(1)
    gap = farthest - nearest  # -inf without a negative
    losses = F.softplus(gap) if margin is None else F.relu(gap + margin)
    return losses.mean()


def _pairwise(anchors: Tensor, others: Tensor, distance: Literal["cosine", "euclidean"]) -> Tensor:
    if distance == "cosine":
        return -(F.normalize(anchors) @ F.normalize(others).mT)
    squares = (x.pow(2).sum(1) for x in (anchors, others))
    squared = next(squares)[:, None] + next(squares)[None] - 2 * (anchors @ others.mT)
    return squared.clamp(min=1e-12).sqrt()


def part_attention(
    part_maps: tuple[Tensor, ...],
    masks: Tensor,
    input_size: Sequence[int],
    source_sizes: Tensor | None = None,
) -> Tensor:
    """Part-attention loss, IAUnet eq. 10: binary cross entropy of each map with its part's target.

    The mean runs over maps, batch, parts and positions (the paper sums over the batch).

    Args:
        part_maps: each [B, P, h, w] in [0, 1] ([B, T, P, h, w] for clips).
        masks: uint8 part indices [B, H, W] ([B, T, H, W] for clips), 0 background.
        input_size: (height, width) of the network's input.
        source_sizes: int [B, 2] ([B, T, 2] for clips) on the CPU, as `part_targets` takes them.
    Returns:
        scalar, float32 or wider.
    Raises:
        ValueError: if there are no maps.
    """
    if not part_maps:
        raise ValueError("the network gives no part maps: set loss.part_attention to 0")
    targets = {
        shape: part_targets(
            masks.flatten(0, -3),  # [B(*T), H, W]
            num_parts=shape[0],
            input_size=input_size,
            map_size=shape[1:],
            source_sizes=None if source_sizes is None else source_sizes.flatten(0, -2),
        )
        for shape in {maps.shape[-3:] for maps in part_maps}
    }
    losses = []
    for maps in part_maps:
        probabilities = _wide(maps).flatten(0, -4)  # [B(*T), P, h, w]
        target = targets[maps.shape[-3:]].to(probabilities.dtype)
        with torch.autocast(probabilities.device.type, enabled=False):
            losses.append(F.binary_cross_entropy(probabilities, target))
    return torch.stack(losses).mean()


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


@lru_cache(maxsize=1024)  # images come in many sizes
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


def overlap(class_maps: tuple[Tensor, ...], labels: Tensor) -> Tensor:
    """How far the branches look at the same places: mean over the batch of the soft intersection
    over union of their class activation maps, each scaled to a greatest value of 1.

    CAMA (Yang et al., CVPR 2019) penalises overlapped activation of its branches; its thresholds
    are not in our sources, so this is the penalty's idea in a form without any.

    Args:
        class_maps: each [B, C, h, w], a classifier's response at every position.
        labels: int64 [B]; the map of the true class is looked at.
    Returns:
        scalar in [0, 1], float32 or wider; 1 where all branches agree.
    Raises:
        ValueError: if there are fewer than two maps.
    """
    if len(class_maps) < 2:
        raise ValueError("overlap needs two branches: set loss.overlap to 0")
    rows = torch.arange(len(labels), device=labels.device)
    maps = torch.stack([F.relu(_wide(x)[rows, labels]) for x in class_maps])  # [K, B, h, w]
    maps = maps / maps.amax((2, 3), keepdim=True).clamp(min=1e-12)
    shared, covered = maps.amin(0).sum((1, 2)), maps.amax(0).sum((1, 2))
    return (shared / covered.clamp(min=1e-12)).mean()


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
