"""Batch normalisation: SCHP's with its activation, and folding into convolutions for inference."""

from __future__ import annotations

import copy
import itertools
from typing import TypeVar

import torch.nn.functional as F
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


SLOPE = 0.01
"""Of the leaky ReLU in SCHP's batch normalisation."""


class ActivatedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation and leaky ReLU: the "activated batch norm" of SCHP's compiled extension.

    That extension multiplies by |weight| + eps; `weights.py` puts this into the weights.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(super().forward(x), SLOPE, inplace=True)


def fold_batch_norm(network: Network) -> Network:
    """A copy in evaluation mode in which each BatchNorm2d registered right after a Conv2d of the
    same module is part of that convolution: the same function in exact arithmetic.

    The factors are computed in float64. In float32 a network's scores move by rounding alone.
    """
    folded = copy.deepcopy(network).eval().requires_grad_(False)
    for module in list(folded.modules()):
        for (first, conv), (second, norm) in itertools.pairwise(list(module.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                activated = isinstance(norm, ActivatedBatchNorm)
                setattr(module, first, _folded(conv, norm))
                setattr(module, second, nn.LeakyReLU(SLOPE, True) if activated else nn.Identity())
    return folded


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    assert norm.running_mean is not None and norm.running_var is not None
    variance = norm.running_var.double() + norm.eps
    factor = norm.weight.double() / variance.sqrt()
    bias = norm.bias.double() - norm.running_mean.double() * factor
    if conv.bias is not None:
        bias += conv.bias.double() * factor
    folded = copy.copy(conv)
    folded._parameters = dict(conv._parameters)
    weight = conv.weight.double() * factor[:, None, None, None]
    folded.weight = nn.Parameter(weight.to(conv.weight.dtype), requires_grad=False)
    folded.bias = nn.Parameter(bias.to(conv.weight.dtype), requires_grad=False)
    return folded
