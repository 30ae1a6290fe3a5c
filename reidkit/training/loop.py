"""One training step and one epoch."""

# B batch, C classes

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from reidkit.config import LossConfig
from reidkit.data.loading import RawBatch
from reidkit.losses import Gather, compute_losses
from reidkit.training.memory import peak_memory
from reidkit.training.precision import AUTOCAST
from reidkit.types import Batch, ModelOutput

LOOK = 50
"""Steps between two looks at the losses on a device that runs ahead of the host."""


@dataclass(frozen=True)
class EpochReport:
    """Means over an epoch.

    Attributes:
        lr: of the last step.
        losses: by name, unweighted; "total" is their weighted sum.
        accuracy: share of training images that the first classifier gets right.
        images, seconds: how many were seen and how long it took.
        memory: peak so far, bytes, of the device (of the process on a CPU).
    """

    epoch: int
    lr: float
    losses: dict[str, float]
    accuracy: float
    images: int
    seconds: float
    memory: int = 0


@dataclass
class Tally:
    """Sums over the steps of an epoch so far, on the device, so that no step waits for them.

    Attributes:
        bad: the first step whose loss was not finite; -1: none.
    """

    losses: dict[str, Tensor] = field(default_factory=dict)
    right: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.long))
    bad: Tensor = field(default_factory=lambda: torch.tensor(-1))
    images: int = 0
    seconds: float = 0.0

    def to(self, device: torch.device) -> Tally:
        losses = {name: value.to(device) for name, value in self.losses.items()}
        right, bad = self.right.to(device), self.bad.to(device)
        return Tally(losses, right, bad, self.images, self.seconds)

    def add(self, step: int, losses: dict[str, Tensor], right: Tensor, images: int) -> None:
        self.losses = {name: self.losses.get(name, 0) + value for name, value in losses.items()}
        self.right = self.right + right
        self.images += images
        finite = torch.isfinite(losses["total"]) | (self.bad >= 0)
        self.bad = torch.where(finite, self.bad, step)


class NotFiniteStep(Exception):
    """The loss of a step was not finite; weights are as they were before it."""

    def __init__(self, step: int, losses: dict[str, float]) -> None:
        super().__init__(step)
        self.step = step
        self.losses = losses


@dataclass(frozen=True)
class Stepper:
    """What a step works with.

    Attributes:
        network: the module to call (the model, compiled and wrapped as it may be).
        after: called after every update (a moving average follows the weights).
        gather: see `losses.compute_losses`.
    """

    network: nn.Module
    loss: LossConfig
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    precision: str
    after: Callable[[], None] = lambda: None
    gather: Gather = lambda local: local

    def forward(self, images: Tensor) -> ModelOutput:
        dtype = AUTOCAST[self.precision]
        with torch.autocast(images.device.type, dtype, enabled=dtype is not torch.float32):
            output: ModelOutput = self.network(images)
        return output

    def try_out(self, batch: Batch) -> None:
        """Forward and backward without an update, to see whether it fits."""
        try:
            losses = compute_losses(self.forward(batch.images), batch, self.loss)
            losses["total"].backward()  # type: ignore[no-untyped-call]  # torch's stub
        finally:
            self.optimizer.zero_grad(set_to_none=True)

    def step(self, batch: Batch, *, number: int) -> tuple[dict[str, Tensor], Tensor]:
        """Forward, backward, update. Returns the losses and the number of right classifications,
        still on the device.

        On CUDA the update leaves the weights alone where a gradient is not finite, and nothing
        waits; on a CPU, where looking is free, it is looked at.

        Raises:
            NotFiniteStep: on a CPU, before anything is updated.
        """
        output = self.forward(batch.images)
        losses = compute_losses(output, batch, self.loss, gather=self.gather)
        if batch.images.device.type == "cpu" and not torch.isfinite(losses["total"]):
            raise NotFiniteStep(number, {name: value.item() for name, value in losses.items()})
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(losses["total"]).backward()  # type: ignore[no-untyped-call]  # stub
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.after()
        logits = output.logits or output.part_logits
        right = (logits[0].argmax(1) == batch.labels).sum()
        return {name: value.detach() for name, value in losses.items()}, right


def train_epoch(
    stepper: Stepper,
    batches: Iterator[tuple[RawBatch, Batch]],
    *,
    epoch: int,
    steps: int,
    first_step: int,
    tally: Tally,
    set_lr: Callable[[float], float],
    on_step: Callable[[int, int], None],
    on_losses: Callable[[dict[str, float]], None],
    on_position: Callable[[int, Tally], None],
) -> EpochReport:
    """Takes the steps from `first_step` on, a batch from the iterator each.

    Args:
        tally: of the steps before `first_step`.
        set_lr: sets the learning rate of an epoch with its fraction, and returns it.
        on_losses: told the mean losses so far at every look (each step on a CPU).
        on_position: told the number of steps done, where a state may be saved.

    Raises:
        NotFiniteStep: at the next look after a loss that is not finite.
    """
    stepper.network.train()
    started = time.perf_counter()
    before, lr = tally.seconds, 0.0
    for step in range(first_step, steps):
        lr = set_lr(epoch + step / steps)
        _, batch = next(batches)
        losses, right = stepper.step(batch, number=step)
        tally.add(step, losses, right, len(batch.labels))
        tally.seconds = before + time.perf_counter() - started
        on_step(step + 1, steps)
        if batch.images.device.type == "cpu" or (step + 1) % LOOK == 0:
            on_losses(_look(tally, step + 1))
        if step + 1 < steps:
            on_position(step + 1, tally)
    means = _look(tally, steps)
    tally.seconds = before + time.perf_counter() - started
    return EpochReport(
        epoch=epoch,
        lr=lr,
        losses=means,
        accuracy=tally.right.item() / tally.images,
        images=tally.images,
        seconds=tally.seconds,
        memory=peak_memory(tally.right.device),
    )


def _look(tally: Tally, steps: int) -> dict[str, float]:
    """The mean losses so far. The host waits for the device here, and only here."""
    bad = int(tally.bad.item())
    means = {name: value.item() / steps for name, value in tally.losses.items()}
    if bad >= 0:
        raise NotFiniteStep(bad, means)
    return means
