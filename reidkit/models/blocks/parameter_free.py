"""PFSA's spatial attention, which has no parameters (Wang et al. 2018, sec. 3.2)."""

# B batch, C channels, H W map

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from reidkit.models.blocks.base import at_least_float32, full_precision

Rescaling = Literal["softmax", "l1"]


def spatial_attention(x: Tensor, *, rescaling: Rescaling = "softmax") -> Tensor:
    """x · p with p over positions; what all channels sum to decides (eq. 1).

    Args:
        x: [B, C, H, W], not negative for "l1".
        rescaling: "softmax" of the channels' sum as the paper has it, nearly one-hot on real
            maps; "l1" as the released code has it, the sum divided by its own sum.
    Returns:
        [B, C, H, W], float32 or wider: p is about 1/(H·W), too fine for half precision.
    """
    with full_precision(x):
        x = at_least_float32(x)
        if rescaling == "l1":
            mean = x.mean(1, keepdim=True)
            # a map that is zero everywhere stays zero; the released code divides by zero
            total = mean.sum((2, 3), keepdim=True)
            return x * (mean / total.clamp_min(torch.finfo(x.dtype).tiny))
        total = x.sum(1, keepdim=True)
        return x * total.flatten(2).softmax(-1).reshape(total.shape)
