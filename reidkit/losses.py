"""Losses, each one function, and the weighted sum that a recipe asks for.

All are computed in float32, also under autocast.
"""

# B batch, T frames, D embedding, C classes, P parts, h w feature map

from __future__ import annotations

from collections.abc import Callable
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
        terms["part_attention"] = part_attention(output.part_maps, batch.masks)
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


def part_attention(part_maps: tuple[Tensor, ...], masks: Tensor) -> Tensor:
    """Part-attention loss, IAUnet eq. 10: binary cross entropy of each map with its part's mask.

    The mask is resized bilinearly (corners aligned, as in the authors' code) to each map; the mean
    runs over maps, batch, parts and positions (the paper sums over the batch).

    Args:
        part_maps: each [B, P, h, w] in [0, 1] ([B, T, P, h, w] for clips).
        masks: uint8 part indices [B, H, W] ([B, T, H, W] for clips), 0 background.
    Returns:
        scalar, float32 or wider.
    Raises:
        ValueError: if there are no maps.
    """
    if not part_maps:
        raise ValueError("the network gives no part maps: set loss.part_attention to 0")
    P = part_maps[0].shape[-3]
    indices = torch.arange(1, P + 1, device=masks.device).view(P, 1, 1)
    losses = []
    for maps in part_maps:
        probabilities = _wide(maps).flatten(0, -4)  # [B(*T), P, h, w]
        planes = (masks.flatten(0, -3)[:, None] == indices).to(probabilities.dtype)
        target = F.interpolate(
            planes, probabilities.shape[-2:], mode="bilinear", align_corners=True
        )
        with torch.autocast(probabilities.device.type, enabled=False):
            losses.append(F.binary_cross_entropy(probabilities, target))
    return torch.stack(losses).mean()


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
