"""How well part attention agrees with part masks: intersection over union."""

# B batch, P parts, h w attention map, H W part map, K thresholds

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from reidkit.data.loading import Masks
from reidkit.data.pixels import pixel_batches
from reidkit.errors import ConfigError
from reidkit.models.base import ReidModel
from reidkit.preprocess import Preprocess
from reidkit.types import PARTS, Dataset, Sample

THRESHOLDS = tuple(k / 40 for k in range(1, 40))


@dataclass(frozen=True)
class PartAgreement:
    """Intersection over union (IoU) of attention and masks, summed over all images.

    Attributes:
        images: number of images.
        iou: of each part, with the attention channel assigned to it at its best threshold.
        channel: the channel assigned to each part; the assignment with the largest sum of IoUs.
        threshold: of each part.
        own: IoU of each part with the channel that the part loss supervises, at its best threshold.
    """

    images: int
    iou: dict[str, float]
    channel: dict[str, int]
    threshold: dict[str, float]
    own: dict[str, float]

    @property
    def mean(self) -> float:
        """Mean IoU over the parts."""
        return sum(self.iou.values()) / len(self.iou)


@torch.inference_mode()
def part_agreement(
    model: ReidModel,
    dataset: Dataset,
    samples: Sequence[Sample],
    masks: Masks,
    *,
    preprocess: Preprocess,
    device: torch.device,
    batch: int = 64,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> PartAgreement:
    """Compares a network's part maps with part masks.

    The maps are averaged over the network's blocks and enlarged to the size of the masks.

    A network trained without the part loss may use any channel for any part, at any level. So each
    network gets the assignment of channels and the thresholds that are best for it, and networks
    trained with and without the loss can be compared.

    Raises:
        ConfigError: if the network has no part maps.
    """
    model = model.to(device).eval()
    P, thresholds = len(PARTS), torch.tensor(THRESHOLDS, device=device)
    intersection = torch.zeros(P, P, len(THRESHOLDS), dtype=torch.float64, device=device)
    union = torch.zeros_like(intersection)
    paths = [sample.path for sample in samples]
    chunks = [paths[start : start + batch] for start in range(0, len(paths), batch)]
    pixels = pixel_batches([[dataset.root / p for p in chunk] for chunk in chunks], preprocess)
    done = 0
    for chunk, image in zip(chunks, pixels, strict=True):
        maps = model(preprocess.normalise(torch.from_numpy(image).to(device))).part_maps
        if not maps:
            raise ConfigError(
                "this network has no part maps. Use iaunet with arch.block = iau or stiau"
            )
        mask = torch.from_numpy(np.stack(list(masks.read(chunk)))).to(device)  # [B, H, W]
        attention = mean_maps(maps, (mask.shape[1], mask.shape[2]))  # [B, P, H, W]
        parts = torch.stack([mask == part + 1 for part in range(P)], 1).flatten(2).double()
        for k, threshold in enumerate(thresholds):
            active = (attention > threshold).flatten(2).double()
            both = torch.einsum("bpx,bcx->pc", parts, active)  # [part, channel]
            intersection[:, :, k] += both
            union[:, :, k] += parts.sum((0, 2))[:, None] + active.sum((0, 2))[None] - both
        done += len(chunk)
        on_progress(done, len(paths))
    iou = (intersection / union.clamp(min=1)).cpu().numpy()  # [part, channel, threshold]
    return _assign_channels(iou, images=len(samples))


def mean_maps(maps: tuple[Tensor, ...], size: tuple[int, int]) -> Tensor:
    """Part maps of several blocks, each [B, P, h, w], enlarged to `size` (height, width) and
    averaged: [B, P, H, W]."""
    large = [F.interpolate(x.float(), size, mode="bilinear", align_corners=True) for x in maps]
    return torch.stack(large).mean(0)


def _assign_channels(iou: NDArray[np.float64], *, images: int) -> PartAgreement:
    from scipy.optimize import linear_sum_assignment

    best, at = iou.max(2), iou.argmax(2)
    rows, columns = linear_sum_assignment(-best)
    return PartAgreement(
        images=images,
        iou={PARTS[p]: float(best[p, c]) for p, c in zip(rows, columns, strict=True)},
        channel={PARTS[p]: int(c) for p, c in zip(rows, columns, strict=True)},
        threshold={PARTS[p]: THRESHOLDS[at[p, c]] for p, c in zip(rows, columns, strict=True)},
        own={PARTS[p]: float(best[p, p]) for p in range(len(PARTS))},
    )
