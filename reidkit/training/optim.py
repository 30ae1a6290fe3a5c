"""Optimiser and learning rate, as recipes state them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from reidkit.config import OptimConfig, ScheduleConfig


def build_optimizer(
    model: nn.Module, config: OptimConfig, *, fused: bool = False
) -> torch.optim.Optimizer:
    """Adam or SGD over all parameters; each group remembers its factor of the learning rate.

    Args:
        fused: one kernel over all parameters (CUDA), which also can leave the weights alone on a
            gradient that is not finite without the host having to look.
    """
    more: Any = {"fused": True} if fused else {}
    groups = [
        {"params": [p for _, p in named], "factor": factor, "lr": config.lr * factor}
        for named, factor in _split(model, config.backbone_factor)
    ]
    if config.name == "adam":
        return torch.optim.Adam(groups, lr=config.lr, weight_decay=config.weight_decay, **more)
    return torch.optim.SGD(
        groups,
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
        **more,
    )


def build_scaler(precision: str, device: torch.device) -> torch.amp.GradScaler:
    """Scales the loss for fp16. For other precisions on CUDA the scale stays 1, and the scaler only
    carries "this gradient is not finite" to the fused optimiser; on a CPU it does nothing."""
    if device.type != "cuda":
        return torch.amp.GradScaler(device.type, enabled=False)
    if precision == "fp16":
        return torch.amp.GradScaler("cuda")
    return torch.amp.GradScaler("cuda", init_scale=1.0, growth_interval=2**31 - 1)


def _split(model: nn.Module, factor: float) -> list[tuple[list[tuple[str, nn.Parameter]], float]]:
    named = list(model.named_parameters())
    if factor == 1:
        return [(named, 1.0)]
    backbone = [pair for pair in named if "backbone." in pair[0]]
    new = [pair for pair in named if "backbone." not in pair[0]]
    return [(backbone, factor), (new, 1.0)]


def learning_rate(config: ScheduleConfig, peak: float, epoch: float) -> float:
    """The learning rate at an epoch (whole epochs for `step`, fractions count for `cosine`).

    Warm-up is linear: warmup_lr + (peak - warmup_lr) * epoch / warmup_epochs.
    """
    if epoch < config.warmup_epochs:
        return config.warmup_lr + (peak - config.warmup_lr) * epoch / config.warmup_epochs
    if config.kind == "step":
        return peak * config.gamma ** sum(epoch >= milestone for milestone in config.milestones)
    rest = config.epochs - config.warmup_epochs
    return peak * 0.5 * (1 + math.cos(math.pi * (epoch - config.warmup_epochs) / rest))


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Gives every group `lr` times its factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["factor"]
