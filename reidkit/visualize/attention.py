"""Where a network's part attention lies: intersection over union with true part maps."""

# B batch, P parts, h w attention map, H W part map, K thresholds

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from reidkit.data.loading import Masks, pixel_batches
from reidkit.errors import ConfigError
from reidkit.models.base import ReidModel
from reidkit.preprocess import Preprocess
from reidkit.types import PARTS, Dataset, Sample

THRESHOLDS = tuple(k / 40 for k in range(1, 40))


@dataclass(frozen=True)
class PartAgreement:
    """How well attention lies on the parts.

    Attributes:
        images: looked at.
        iou: per part, intersection over union summed over all images, at the best threshold of
            that part.
        channel: which attention channel was taken for each part: the assignment with the best sum.
        threshold: per part.
        own: per part, of the channel that the part loss supervises, at its best threshold.
    """

    images: int
    iou: dict[str, float]
    channel: dict[str, int]
    threshold: dict[str, float]
    own: dict[str, float]

    @property
    def mean(self) -> float:
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
    """Compares the mean over blocks of a network's part maps, enlarged to the true maps, with them.

    A network that was trained without the part loss may use any channel for any part, and any level
    for "here": every network is given the assignment of channels and the thresholds that suit it
    best, so that a difference is not one of bookkeeping.

    Raises:
        ConfigError: if the network gives no part maps.
    """
    model = model.to(device).eval()
    P, thresholds = len(PARTS), torch.tensor(THRESHOLDS, device=device)
    shared = torch.zeros(P, P, len(THRESHOLDS), dtype=torch.float64, device=device)
    covered = torch.zeros_like(shared)
    paths = [sample.path for sample in samples]
    chunks = [paths[start : start + batch] for start in range(0, len(paths), batch)]
    pixels = pixel_batches([[dataset.root / p for p in chunk] for chunk in chunks], preprocess)
    done = 0
    for chunk, picture in zip(chunks, pixels, strict=True):
        maps = model(preprocess.normalise(picture.to(device))).part_maps
        if not maps:
            raise ConfigError("this network gives no part maps: take iaunet with stiau or iau")
        true = torch.from_numpy(np.stack(list(masks.read(chunk)))).to(device)  # [B, H, W]
        attention = _enlarged(maps, (true.shape[1], true.shape[2]))  # [B, P, H, W]
        parts = torch.stack([true == part + 1 for part in range(P)], 1).flatten(2).double()
        for k, threshold in enumerate(thresholds):
            here = (attention > threshold).flatten(2).double()
            both = torch.einsum("bpx,bcx->pc", parts, here)  # parts by channels
            shared[:, :, k] += both
            covered[:, :, k] += parts.sum((0, 2))[:, None] + here.sum((0, 2))[None] - both
        done += len(chunk)
        on_progress(done, len(paths))
    iou = (shared / covered.clamp(min=1)).cpu().numpy()  # [part, channel, threshold]
    return _best(iou, images=len(samples))


def _enlarged(maps: tuple[Tensor, ...], size: tuple[int, int]) -> Tensor:
    large = [F.interpolate(x.float(), size, mode="bilinear", align_corners=True) for x in maps]
    return torch.stack(large).mean(0)


def _best(iou: NDArray[np.float64], *, images: int) -> PartAgreement:
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
