"""What a run would be: shapes, size, steps, time and memory, measured over a few steps."""

# B batch

from __future__ import annotations

import functools
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reidkit.training.diagnostics import peak_memory
from reidkit.training.trainer import Trainer
from reidkit.types import ModelOutput

TIMED_STEPS = 3


@dataclass(frozen=True)
class DryRun:
    """A run's size, measured over three steps after a first one.

    Attributes:
        shapes: (name, shape) of the input and of the outputs of stages and network.
        parameters: with classifiers. trainable: those that the optimizer changes.
        steps: per epoch.
        step_seconds: of the timed steps, data loading included.
        seconds: estimated for the whole training, without evaluations.
        memory: peak bytes, of the device (of this process on a CPU).
        losses: of the last timed step.
    """

    shapes: list[tuple[str, str]]
    parameters: int
    trainable: int
    identities: int
    images: int
    steps: int
    epochs: int
    step_seconds: list[float]
    seconds: float
    memory: int
    precision: str
    losses: dict[str, float]


def dry_run(trainer: Trainer) -> DryRun:
    """Trains up to four steps and writes nothing. The trainer must not be used afterwards."""
    shapes: list[tuple[str, str]] = []
    seconds: list[float] = []
    losses: dict[str, Tensor] = {}
    trainer.load_weights()
    trainer.network.train()
    with trainer.load_batches() as batches:
        for step in range(1 + TIMED_STEPS):
            started = time.perf_counter()
            batch = next(batches, None)
            if batch is None:
                break  # the run is shorter than that
            if step == 0:
                shapes = [("images", _shape(batch.images)), *_trace(trainer, batch.images)]
            _, losses = trainer.losses(batch)
            trainer.state.update(losses["total"])
            if trainer.device.type == "cuda":
                torch.cuda.synchronize(trainer.device)
            seconds.append(time.perf_counter() - started)
    seconds = seconds[1:] or seconds
    parameters = list(trainer.model.parameters())
    epochs = trainer.config.schedule.epochs
    return DryRun(
        shapes=shapes,
        parameters=sum(p.numel() for p in parameters),
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        identities=trainer.images.num_ids,
        images=len(trainer.images.items),
        steps=trainer.steps,
        epochs=epochs,
        step_seconds=seconds,
        seconds=sum(seconds) / len(seconds) * trainer.steps * epochs,
        memory=peak_memory(trainer.device),
        precision=trainer.config.precision,
        losses={name: value.item() for name, value in losses.items()},
    )


def _trace(trainer: Trainer, images: Tensor) -> list[tuple[str, str]]:
    """Output shapes of the stages and of the network, for two samples in evaluation mode."""
    model = trainer.model
    shapes: list[tuple[str, str]] = []

    def record(name: str, module: nn.Module, inputs: object, output: object) -> None:
        first = output[0] if isinstance(output, tuple) else output
        if isinstance(first, Tensor):
            shapes.append((name, _shape(first)))

    handles = [
        model.backbone.units(stage)[-1].register_forward_hook(
            functools.partial(record, f"stage {stage}")
        )
        for stage in (1, 2, 3, 4)
    ]
    model.eval()
    try:
        with torch.no_grad():
            output: ModelOutput = model(images[:2])
    finally:
        model.train()
        for handle in handles:
            handle.remove()
    for name in ("features", "logits", "part_logits", "deep_logits", "part_maps"):
        value = getattr(output, name)
        tensors = (value,) if isinstance(value, Tensor) else value
        shapes += [(f"output {name}", _shape(tensor)) for tensor in tensors]
    return shapes


def _shape(tensor: Tensor) -> str:
    return "x".join(["B", *map(str, tensor.shape[1:])])
