"""Optimizer, learning rate, precision and moving average of the weights."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from reidkit.config import OptimConfig, ScheduleConfig
from reidkit.device import MIN_BF16_SIDE, has_native_bf16, has_wrong_bf16
from reidkit.errors import ConfigError

log = logging.getLogger(__name__)

AUTOCAST_DTYPE: dict[str, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


@dataclass(frozen=True)
class TrainState:
    """Everything that a training step changes.

    Attributes:
        ema: moving average of the weights, or None.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: AveragedModel | None = None

    def update(self, loss: Tensor) -> None:
        """One step of gradient descent on a scalar loss.

        On CUDA the step is skipped where a gradient is not finite, without blocking the host.
        """
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch's stub
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema is not None:
            self.ema.update_parameters(self.model)


def build_optimizer(
    model: nn.Module, config: OptimConfig, *, fused: bool = False
) -> torch.optim.Optimizer:
    """Adam or SGD over all parameters; each parameter group keeps its learning-rate `factor`.

    Args:
        fused: one kernel over all parameters (CUDA), which can also skip an update with a
            non-finite gradient without a synchronization with the host.
    """
    groups = [
        {"params": parameters, "factor": factor, "lr": config.lr * factor}
        for parameters, factor in _parameter_groups(model, config.backbone_factor)
    ]
    shared: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay}
    if fused:
        shared["fused"] = True
    if config.name == "adam":
        return torch.optim.Adam(groups, **shared)
    return torch.optim.SGD(groups, momentum=config.momentum, nesterov=config.nesterov, **shared)


def _parameter_groups(
    model: nn.Module, backbone_factor: float
) -> list[tuple[list[nn.Parameter], float]]:
    named = list(model.named_parameters())
    if backbone_factor == 1:
        return [([p for _, p in named], 1.0)]
    backbone = [p for name, p in named if "backbone." in name]
    rest = [p for name, p in named if "backbone." not in name]
    return [(backbone, backbone_factor), (rest, 1.0)]


def learning_rate(config: ScheduleConfig, peak: float, epoch: float) -> float:
    """The learning rate at a (fractional) epoch; step schedules change at whole epochs only.

    A closed form rather than one of torch's chained schedulers: a resumed step computes it from
    its position alone, and no rounding accumulates.

    Warm-up is linear: warmup_lr + (peak - warmup_lr) * epoch / warmup_epochs.
    """
    if config.kind == "step":
        epoch = int(epoch)
    if epoch < config.warmup_epochs:
        return config.warmup_lr + (peak - config.warmup_lr) * epoch / config.warmup_epochs
    if config.kind == "step":
        return peak * config.gamma ** sum(epoch >= milestone for milestone in config.milestones)
    remaining = config.epochs - config.warmup_epochs
    return peak * 0.5 * (1 + math.cos(math.pi * (epoch - config.warmup_epochs) / remaining))


def extension_line(before: ScheduleConfig, now: ScheduleConfig, peak: float, epoch: int) -> str:
    """What training for more epochs than planned does to the learning rate, for people.

    Args:
        epoch: complete epochs.
    """
    then, rate = learning_rate(before, peak, epoch), learning_rate(now, peak, epoch)
    effect = f"the learning rate of epoch {epoch + 1} is {rate:.2e}"
    if now.kind == "cosine":
        effect += f" instead of {then:.2e}: the cosine is stretched"
    elif epoch >= max(now.milestones, default=0):
        effect += " and stays there: it is past the last milestone"
    return f"{now.epochs} epochs instead of {before.epochs}: {effect}"


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Sets every parameter group to `lr` times its factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["factor"]


def build_scaler(precision: str, device: torch.device) -> torch.amp.GradScaler:
    """Scales the loss for fp16. For other precisions on CUDA the scale stays 1 and the scaler only
    tells the fused optimizer that a gradient is not finite; on a CPU it does nothing."""
    if device.type != "cuda":
        return torch.amp.GradScaler(device.type, enabled=False)
    if precision == "fp16":
        return torch.amp.GradScaler("cuda")
    return torch.amp.GradScaler("cuda", init_scale=1.0, growth_interval=2**31 - 1)


def build_ema(model: nn.Module, decay: float) -> AveragedModel | None:
    """An exponential moving average of the weights that starts at the initial weights; None for a
    decay of 0. Batch norm's running statistics are the model's own."""
    if not decay:
        return None
    update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # torch's
    average = AveragedModel(model, multi_avg_fn=update)
    average.n_averaged.fill_(1)  # otherwise the first update would replace the initial weights
    return average


def resolve_precision(
    precision: str, device: torch.device, input_size: tuple[int, int]
) -> Literal["fp32", "bf16", "fp16"]:
    """What "auto" means on this device: bf16 where it is native and right, else fp32.

    Never fp16, which needs loss scaling and is a common cause of diverging runs.

    Raises:
        ConfigError: if the device does not support `precision` for images of `input_size`.
    """
    wrong = has_wrong_bf16(device, input_size)
    if precision == "bf16" and wrong:
        raise ConfigError(
            f"oneDNN's bf16 convolutions are wrong on this CPU for images below {MIN_BF16_SIDE} "
            "pixels. Use --precision fp32, or a larger --size"
        )
    if precision == "auto":
        if wrong or not has_native_bf16(device):
            return "fp32"
        log.info("precision: bf16 with losses in float32; --precision fp32 for float32 only")
        return "bf16"
    if precision == "fp16" and device.type == "cpu":
        raise ConfigError("fp16 training needs a CUDA device. Use --precision bf16 or fp32")
    assert precision in AUTOCAST_DTYPE, precision
    return precision  # type: ignore[return-value]  # a key of AUTOCAST_DTYPE
