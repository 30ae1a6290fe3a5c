"""What a run would be: shapes, size, steps, time and memory, from three timed steps."""

# B batch

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reidkit.config import RunConfig
from reidkit.data.loading import Masks, train_loader
from reidkit.models.base import ReidModel
from reidkit.runtime.distributed import SINGLE_PROCESS
from reidkit.training.memory import peak_memory
from reidkit.training.prefetch import on_device
from reidkit.training.setup import Setup, prepare
from reidkit.types import Dataset, ModelOutput

TIMED = 3


@dataclass(frozen=True)
class Forecast:
    """What three steps tell of a run.

    Attributes:
        shapes: name and shape of what goes in and what comes out of stages, blocks and network.
        parameters: with classifiers. trainable: that the optimiser changes.
        steps: of an epoch.
        step_seconds: of the three timed steps after a first one, loading included.
        seconds: of the whole training, evaluations left out.
        memory: peak bytes, of the device (of this process on a CPU).
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


def dry_run(
    config: RunConfig,
    dataset: Dataset,
    *,
    masks: Masks | None,
    device: torch.device,
    workers: int = 2,
) -> Forecast:
    """Builds everything, trains four steps, writes nothing.

    Raises:
        ConfigError, DataError: as `training.run.run` would.
    """
    setup = prepare(config, dataset, masks=masks, device=device)
    drawn = setup.batches(epoch=0, step=0, group=SINGLE_PROCESS)
    steps = len(drawn.epoch(0))
    raw = iter(train_loader(setup.images, drawn, workers=workers, pin=device.type == "cuda"))
    batches = on_device(raw, setup.images, device)
    shapes, losses, seconds = _steps(setup, batches, device)
    model, total = setup.model, steps * config.schedule.epochs
    return Forecast(
        shapes=shapes,
        parameters=sum(p.numel() for p in model.parameters()),
        trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
        identities=setup.num_ids,
        images=len(setup.images.samples),
        steps=steps,
        epochs=config.schedule.epochs,
        step_seconds=seconds,
        seconds=sum(seconds) / len(seconds) * total,
        memory=peak_memory(device),
        precision=setup.config.precision,
        losses=losses,
    )


def _steps(
    setup: Setup, batches: object, device: torch.device
) -> tuple[list[tuple[str, str]], dict[str, float], list[float]]:
    setup.model.train()
    shapes: list[tuple[str, str]] = []
    seconds: list[float] = []
    losses: dict[str, Tensor] = {}
    for number in range(1 + TIMED):
        started = time.perf_counter()
        try:
            _, batch = next(batches)  # type: ignore[call-overload]  # an iterator
        except StopIteration:
            break  # a run shorter than four steps
        if number == 0:
            shapes = [("images", _shape(batch.images)), *_trace(setup, batch.images)]
        losses, _ = setup.stepper.step(batch, number=number)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    means = {name: value.item() for name, value in losses.items()}
    return shapes, means, seconds[1:] or seconds


def _trace(setup: Setup, images: Tensor) -> list[tuple[str, str]]:
    """Shapes of two samples' way through the network, in evaluation mode."""
    model: ReidModel = setup.model
    shapes: list[tuple[str, str]] = []
    backbone = model.backbone
    named: list[tuple[str, nn.Module]] = [
        (f"stage {stage}", backbone.units(stage)[-1]) for stage in (1, 2, 3, 4)
    ]

    def hook(name: str) -> Callable[[nn.Module, object, object], None]:
        def note(module: nn.Module, inputs: object, output: object) -> None:
            first = output[0] if isinstance(output, tuple) else output
            if isinstance(first, Tensor):
                shapes.append((name, _shape(first)))

        return note

    handles = [module.register_forward_hook(hook(name)) for name, module in named]
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
