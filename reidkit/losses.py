"""Losses: functions, the table of them, and their weighted sum.

A new loss is one function and its line in `LOSSES`, with its weight in `config.LossConfig`. All are
computed in float32, also under autocast.
"""

# B batch, T frames, D embedding, C classes, P parts, h w feature map

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from reidkit.choices import Metric
from reidkit.config import LossConfig
from reidkit.part_targets import part_targets
from reidkit.types import Batch, ModelOutput

Gather = Callable[[Tensor], Tensor]
"""The batches [B, ...] of all processes concatenated, with gradients to the local part."""


def compute_losses(
    output: ModelOutput,
    batch: Batch,
    weights: LossConfig,
    *,
    gather: Gather = lambda local: local,
) -> dict[str, Tensor]:
    """Every loss with a weight above 0, unweighted, and "total", their weighted sum: scalars.

    Args:
        gather: positives and negatives of the triplet loss are mined among its result, where
            several processes share a batch; the other losses are means over local samples.
    """
    inputs = {
        **vars(weights),
        "labels": batch.labels,
        "masks": batch.masks,
        "source_sizes": batch.mask_sizes,
        "input_size": tuple(batch.images.shape[-2:]),
        "gather": gather,
    }
    terms: dict[str, Tensor] = {}
    for name, loss in LOSSES.items():
        value = getattr(output, loss.field)
        left_out = (loss.needs_masks and batch.masks is None) or (loss.optional and not value)
        if getattr(weights, name) > 0 and not left_out:
            terms[name] = loss.function(value, **{key: inputs[key] for key in loss.arguments})
    terms["total"] = torch.stack([getattr(weights, k) * v for k, v in terms.items()]).sum()
    return terms


def needs_masks(weights: LossConfig) -> bool:
    """Whether any loss with a weight above 0 compares the output with part masks."""
    return any(loss.needs_masks and getattr(weights, name) > 0 for name, loss in LOSSES.items())


def cross_entropy(logits: Tensor, labels: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Mean cross entropy with targets (1 - smoothing) * onehot + smoothing / C.

    Args:
        logits: [B, C].
        labels: int64 [B].
    Returns:
        scalar, float32 or wider.
    """
    return F.cross_entropy(_wide(logits), labels, label_smoothing=smoothing)


def mean_cross_entropy(logits: tuple[Tensor, ...], labels: Tensor, *, smoothing: float) -> Tensor:
    """Mean of the classifiers' cross entropies; `logits` has at least one [B, C]."""
    return torch.stack([cross_entropy(x, labels, smoothing=smoothing) for x in logits]).mean()


def sum_cross_entropy(logits: tuple[Tensor, ...], labels: Tensor, *, smoothing: float) -> Tensor:
    """Sum of the classifiers' cross entropies (PFSA); `logits` has at least one [B, C]."""
    return torch.stack([cross_entropy(x, labels, smoothing=smoothing) for x in logits]).sum()


def batch_hard_triplet(
    features: Tensor,
    labels: Tensor,
    *,
    margin: float = 0.3,
    soft_margin: bool = False,
    distance: Metric = "cosine",
    gather: Gather = lambda local: local,
) -> Tensor:
    """Batch-hard triplet loss, Hermans et al. 2017, eq. 5; mean over anchors.

    relu(margin + max d(anchor, same id) - min d(anchor, other id)). Cosine distance is -cos (IAUnet
    eq. 16), Euclidean sqrt(max(d², 1e-12)) as in RGA's code. The anchor counts as its own positive,
    which makes no difference if it has another.

    Args:
        features: [B, D].
        labels: int64 [B]; a batch with one identity has no negative and gives 0.
        soft_margin: softplus of the difference instead, without margin.
        gather: anchors are the B local features, positives and negatives the gathered ones.
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
    losses = F.softplus(gap) if soft_margin else F.relu(gap + margin)
    return losses.mean()


def _pairwise(anchors: Tensor, others: Tensor, distance: Metric) -> Tensor:
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


def overlap(class_maps: tuple[Tensor, ...], labels: Tensor) -> Tensor:
    """Overlap of the branches' attention: the soft intersection over union of their class
    activation maps, each scaled to a maximum of 1; mean over the batch.

    CAMA (Yang et al., CVPR 2019) penalises overlapping activations of its branches. Its thresholds
    are not in our sources, so this is the penalty without thresholds.

    Args:
        class_maps: each [B, C, h, w], a classifier's response at every position.
        labels: int64 [B]; selects the map of the true class.
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
    intersection, union = maps.amin(0).sum((1, 2)), maps.amax(0).sum((1, 2))
    return (intersection / union.clamp(min=1e-12)).mean()


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


@dataclass(frozen=True)
class Loss:
    """A line of the table `LOSSES`; its key is also the name of its weight in `LossConfig`.

    Attributes:
        function: loss of an output and the arguments below, a scalar.
        field: the field of `ModelOutput` that it takes.
        arguments: labels, masks, input_size, gather, or parameters in `LossConfig`, by name.
        optional: left out for networks that have no such output.
    """

    function: Callable[..., Tensor]
    field: str
    arguments: tuple[str, ...]
    optional: bool = False

    @property
    def needs_masks(self) -> bool:
        return "masks" in self.arguments


LOSSES = {
    "identity": Loss(mean_cross_entropy, "logits", ("labels", "smoothing"), optional=True),
    "parts_identity": Loss(
        sum_cross_entropy, "part_logits", ("labels", "smoothing"), optional=True
    ),
    "deep": Loss(sum_cross_entropy, "deep_logits", ("labels", "smoothing"), optional=True),
    "triplet": Loss(
        batch_hard_triplet, "features", ("labels", "margin", "soft_margin", "distance", "gather")
    ),
    "part_attention": Loss(part_attention, "part_maps", ("masks", "input_size", "source_sizes")),
    "overlap": Loss(overlap, "class_maps", ("labels",)),
}
"""In the order of their summation."""
