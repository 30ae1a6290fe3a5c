"""One training step and one epoch."""

# B batch, C classes

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reidkit.config import LossConfig
from reidkit.data.loading import RawBatch, TrainImages
from reidkit.errors import ReidkitError
from reidkit.losses import compute_losses
from reidkit.models.base import ReidModel
from reidkit.types import Batch

AUTOCAST = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class EpochReport:
    """Means over an epoch.

    Attributes:
        losses: by name, unweighted; "total" is their weighted sum.
        accuracy: share of training images that the first classifier gets right.
        images, seconds: how many were seen and how long it took.
    """

    epoch: int
    lr: float
    losses: dict[str, float]
    accuracy: float
    images: int
    seconds: float


def train_step(
    model: ReidModel,
    batch: Batch,
    *,
    loss: LossConfig,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    precision: str,
) -> tuple[dict[str, Tensor], Tensor]:
    """Forward, backward, update. Returns the losses and the number of right classifications, still
    on the device."""
    dtype = AUTOCAST[precision]
    device = batch.images.device.type
    with torch.autocast(device, dtype, enabled=dtype is not torch.float32):
        output = model(batch.images)
    losses = compute_losses(output, batch, loss)
    optimizer.zero_grad(set_to_none=True)
    scaler.scale(losses["total"]).backward()  # type: ignore[no-untyped-call]  # torch's stub
    scaler.step(optimizer)
    scaler.update()
    right = (output.logits[0].argmax(1) == batch.labels).sum()
    return {name: value.detach() for name, value in losses.items()}, right


def train_epoch(
    model: ReidModel,
    images: TrainImages,
    raw_batches: Iterator[RawBatch],
    *,
    epoch: int,
    steps: int,
    set_lr: Callable[[float], float],
    loss: LossConfig,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    precision: str,
    device: torch.device,
    on_step: Callable[[int, int], None],
) -> EpochReport:
    """Takes `steps` batches from the iterator.

    Args:
        set_lr: sets the learning rate of an epoch with its fraction, and returns it.

    Raises:
        ReidkitError: if a loss is not finite; names the step and the first images of the batch.
    """
    model.train()
    started = time.perf_counter()
    sums: dict[str, Tensor] = {}
    right, seen, lr = torch.zeros((), dtype=torch.long, device=device), 0, 0.0
    for step in range(steps):
        raw = next(raw_batches)
        lr = set_lr(epoch + step / steps)
        batch = images.finish(raw, device)
        losses, hits = train_step(
            model, batch, loss=loss, optimizer=optimizer, scaler=scaler, precision=precision
        )
        sums = {name: sums.get(name, 0) + value for name, value in losses.items()}
        right, seen = right + hits, seen + len(raw.labels)
        if not torch.isfinite(losses["total"]):
            raise ReidkitError(
                _not_finite(epoch, step, losses, [images.path(d) for d in raw.draws])
            )
        on_step(step + 1, steps)
    return EpochReport(
        epoch=epoch,
        lr=lr,
        losses={name: value.item() / steps for name, value in sums.items()},
        accuracy=right.item() / seen,
        images=seen,
        seconds=time.perf_counter() - started,
    )


def _not_finite(epoch: int, step: int, losses: dict[str, Tensor], paths: Sequence[str]) -> str:
    values = ", ".join(f"{name} {value.item():g}" for name, value in losses.items())
    return (
        f"the loss is not finite in epoch {epoch + 1}, step {step + 1}: {values}. The batch begins "
        f"with {', '.join(paths[:3])}. Lower optim.lr or train with --precision fp32"
    )
