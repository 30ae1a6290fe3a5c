"""Training speed: float32 in torch's default layout against what `reidkit train` does.

    python benchmarks/training.py [--device cuda] [--arch baseline] [--batch 32] [--steps 3]

Rows: one step on data that is on the device already, per precision, layout and compilation; then
whole steps with real loading from drawn pictures. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from reidkit.config import Layer, RunConfig, load_run_config, with_recipe
from reidkit.data.loading import train_loader
from reidkit.data.manifest import open_dataset
from reidkit.device import torch_device
from reidkit.runtime.distributed import SINGLE_PROCESS
from reidkit.synthetic import LAYOUTS
from reidkit.training.loop import Stepper
from reidkit.training.memory import peak_memory
from reidkit.training.optim import build_optimizer, build_scaler
from reidkit.training.prefetch import on_device
from reidkit.training.setup import build_model, prepare
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


def stepper(config: RunConfig, device: torch.device, *, last: bool, compiled: bool) -> Stepper:
    torch.manual_seed(0)
    model = build_model(config, num_ids=751).to(device).train()
    if last:
        model.to(memory_format=torch.channels_last)
    if compiled:
        nn.Module.compile(model)
    optimizer = build_optimizer(model, config.optim, fused=device.type == "cuda")
    return Stepper(
        model,
        config.loss,
        optimizer,
        build_scaler(config.precision, device),
        config.precision,
    )


def timed(step: object, steps: int, device: torch.device) -> float:
    """Seconds of the fastest of `steps` calls, after one that is not counted."""
    best = float("inf")
    for number in range(steps + 1):
        started = time.perf_counter()
        step()  # type: ignore[operator]
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
    print(f"{'':34} {'s/step':>8} {'images/s':>9} {'times':>6}  first loss")
    rows = [("fp32", False, False), ("fp32", True, False), ("bf16", True, False)]
    rows += [("bf16", True, True)] if arguments.compile else []
    plain = None
    for precision, last, compiled in rows:
        config = settings(arguments, precision=precision)
        batch = Batch(
            images.contiguous(memory_format=torch.channels_last) if last else images, labels, labels
        )
        work = stepper(config, device, last=last, compiled=compiled)
        losses = []

        def step(work: Stepper = work, batch: Batch = batch, losses: list[float] = losses) -> None:
            found, _ = work.step(batch, number=0)
            losses.append(found["total"].item())

        seconds = timed(step, arguments.steps, device)
        plain = plain or seconds
        name = f"{precision}, {'channels last' if last else 'NCHW'}{', compiled' * compiled}"
        print(
            f"{name:34} {seconds:8.3f} {B / seconds:9.1f} {plain / seconds:6.2f}  {losses[0]:.4f}"
        )
    with tempfile.TemporaryDirectory() as folder:
        LAYOUTS["market1501"](
            Path(folder) / "data", train_pids=max(16, B // 2), test_pids=2, seed=0
        )
        data = open_dataset(str(Path(folder) / "data"))
        config = settings(arguments, precision="auto", schedule={"epochs": 99, "milestones": []})
        setup = prepare(config, data, masks=None, device=device, group=SINGLE_PROCESS)
        drawn = setup.batches(epoch=0, step=0, group=SINGLE_PROCESS)
        raw = iter(
            train_loader(setup.images, drawn, workers=arguments.workers, pin=device.type == "cuda")
        )
        batches = on_device(raw, setup.images, device)
        setup.model.train()
        seconds = timed(
            lambda: setup.stepper.step(next(batches)[1], number=0), arguments.steps, device
        )
        _, kept = next(batches)
        still = timed(lambda: setup.stepper.step(kept, number=0), arguments.steps, device)
    name = f"{setup.config.precision}, with loading"
    print(f"{name:34} {seconds:8.3f} {B / seconds:9.1f} {plain / seconds:6.2f}")
    print(f"with loading over data on the device: {seconds / still:.2f}")
    print(f"peak memory {peak_memory(device) / 2**30:.2f} GiB")


if __name__ == "__main__":
    main()
