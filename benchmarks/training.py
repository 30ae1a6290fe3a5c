"""Training speed: float32 in torch's default layout against what `reidkit train` does.

    python benchmarks/training.py [--device cuda] [--arch baseline] [--batch 32] [--steps 3]

Rows: a step on data on the device, by precision, memory layout and compilation; then whole steps
with data loading from synthetic images. Run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from reidkit.config import Layer, RunConfig, load_run_config, with_recipe
from reidkit.data.manifest import open_dataset
from reidkit.device import torch_device
from reidkit.losses import compute_losses
from reidkit.synthetic import LAYOUTS
from reidkit.training.diagnostics import peak_memory
from reidkit.training.optim import AUTOCAST_DTYPE, TrainState, build_optimizer, build_scaler
from reidkit.training.setup import build_model
from reidkit.training.trainer import RunOptions, Trainer
from reidkit.types import Batch


def settings(arguments: argparse.Namespace, **more: object) -> RunConfig:
    given = {
        "arch": {"name": arguments.arch, "backbone": arguments.backbone},
        "input": {"size": arguments.size},
        "sampler": {"batch": arguments.batch, "kind": "groups"},
        "loss": {"part_attention": 0.0},
        "weights": "none",
        **more,
    }
    return load_run_config(with_recipe([Layer("benchmark", given)], preset=None, dataset=""))


def build_step(
    config: RunConfig, batch: Batch, device: torch.device, *, channels_last: bool, compiled: bool
) -> Callable[[], float]:
    """A function that takes a training step on `batch` and returns the loss."""
    torch.manual_seed(0)
    model = build_model(config, num_ids=751).to(device).train()
    if channels_last:
        model.to(memory_format=torch.channels_last)
    if compiled:
        nn.Module.compile(model)
    optimizer = build_optimizer(model, config.optim, fused=device.type == "cuda")
    state = TrainState(model, optimizer, build_scaler(config.precision, device))
    dtype = AUTOCAST_DTYPE[config.precision]

    def step() -> float:
        with torch.autocast(device.type, dtype, enabled=dtype is not torch.float32):
            output = model(batch.images)
        losses = compute_losses(output, batch, config.loss)
        state.update(losses["total"])
        return losses["total"].item()

    return step


def timed(step: Callable[[], object], steps: int, device: torch.device) -> float:
    """Seconds of the fastest of `steps` calls, after a warm-up call."""
    best = float("inf")
    for number in range(steps + 1):
        started = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if number:
            best = min(best, time.perf_counter() - started)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--arch", default="baseline")
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--size", type=int, nargs=2, default=[256, 128])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="also with torch.compile")
    arguments = parser.parse_args()
    device, B = torch_device(arguments.device), arguments.batch
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(B, 3, *arguments.size, generator=generator).to(device)
    labels = torch.arange(B, device=device) // 4
    print(
        f"{arguments.arch}, {arguments.backbone}, {arguments.size}, batch {B}, {device}, ", end=""
    )
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{'':34} {'s/step':>8} {'images/s':>9} {'speed-up':>8}  first loss")
    rows = [("fp32", False, False), ("fp32", True, False), ("bf16", True, False)]
    rows += [("bf16", True, True)] if arguments.compile else []
    first = None
    for precision, channels_last, compiled in rows:
        config = settings(arguments, precision=precision)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        batch = Batch(images.contiguous(memory_format=layout), labels, labels)
        step = build_step(config, batch, device, channels_last=channels_last, compiled=compiled)
        loss = step()
        seconds = timed(step, arguments.steps, device)
        first = first or seconds
        name = f"{precision}, {'channels last' if channels_last else 'NCHW'}"
        name += ", compiled" * compiled
        print(f"{name:34} {seconds:8.3f} {B / seconds:9.1f} {first / seconds:8.2f}  {loss:.4f}")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "data"
        LAYOUTS["market1501"](root, train_pids=max(16, B // 2), test_pids=2, seed=0)
        trainer = Trainer(
            settings(arguments, precision="auto", schedule={"epochs": 99, "milestones": []}),
            open_dataset(str(root)),
            folder=Path(folder),
            masks=None,
            device=device,
            options=RunOptions(workers=arguments.workers),
        )
        trainer.network.train()

        def train_on(batch: Batch) -> None:
            trainer.state.update(trainer.losses(batch)[1]["total"])

        with trainer.load_batches() as batches:
            loading = timed(lambda: train_on(next(batches)), arguments.steps, device)
            batch = next(batches)
        loaded = timed(lambda: train_on(batch), arguments.steps, device)
    name = f"{trainer.config.precision}, with data loading"
    print(f"{name:34} {loading:8.3f} {B / loading:9.1f} {first / loading:8.2f}")
    print(f"with data loading over data on the device: {loading / loaded:.2f}")
    print(f"peak memory {peak_memory(device) / 2**30:.2f} GiB")


if __name__ == "__main__":
    main()
