"""What a network costs: parameters, and multiply-adds counted without computing anything."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from reidkit.models.base import ReidModel
from reidkit.registry import ArchSpec


def build_weightless(
    spec: ArchSpec, config: Any, *, num_ids: int = 0, input_size: tuple[int, int] | None = None
) -> ReidModel:
    """The network on the meta device: shapes without memory."""
    with torch.device("meta"):
        model: ReidModel = spec.build(
            config, num_ids=num_ids, input_size=input_size or spec.input_size
        )
    return model.eval()


def count_parameters(module: nn.Module) -> int:
    """Parameters, frozen ones included, buffers not."""
    return sum(parameter.numel() for parameter in module.parameters())


def multiply_adds(model: ReidModel, input_size: tuple[int, int], *, frames: int = 1) -> float:
    """Multiply-adds of convolutions, linear layers and matrix products in `embed`.

    Args:
        model: from `build_weightless`.
        input_size: (height, width) in pixels.
        frames: 1 for an image, else the frames of one clip.
    """
    shape = (1, 3, *input_size) if frames == 1 else (1, frames, 3, *input_size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.embed(torch.zeros(shape, device="meta"))
    flops: int = counter.get_total_flops()
    return flops / 2
