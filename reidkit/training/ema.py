"""An exponential moving average of a network's weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class MovingAverage:
    """weights = decay * weights + (1 - decay) * the network's, after every step.

    Batch norm's running statistics are averages already and are taken as they are.
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        self.decay = decay
        self.weights = [p.detach().clone() for p in model.parameters()]

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        torch._foreach_lerp_(self.weights, [p.detach() for p in model.parameters()], 1 - self.decay)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Within, the network has the averaged weights."""
        kept = [p.detach().clone() for p in model.parameters()]
        _copy(self.weights, model)
        try:
            yield
        finally:
            _copy(kept, model)


@torch.no_grad()
def _copy(weights: list[Tensor], model: nn.Module) -> None:
    for p, value in zip(model.parameters(), weights, strict=True):
        p.copy_(value)
