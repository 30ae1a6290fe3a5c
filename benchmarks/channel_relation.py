"""Time and peak memory of IAUnet's channel relation on clips, compared with the plain formulation.

    python benchmarks/channel_relation.py [--clips 4] [--frames 4] [--stages 2 3] [--device cpu]

The plain formulation is softmax(X Xᵀ) X with the [T·C, T·C] matrix in memory. Each measurement runs
in its own process, because peak memory is measured per process; the network has random weights.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from reidkit.models.blocks import ciau
from reidkit.registry import get_arch


@dataclass(frozen=True)
class Run:
    clips: int
    frames: int
    stages: tuple[int, ...]
    device: str
    plain: bool
    train: bool
    repeats: int


@dataclass(frozen=True)
class Cost:
    seconds: float  # of the fastest repeat
    mib: float  # peak above the network's own weights and input


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--stages", type=int, nargs="*", default=[2, 3])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    print(
        f"iaunet, stages {arguments.stages}, {arguments.clips} clips of {arguments.frames} frames, "
        f"256x128, {arguments.device}, {torch.get_num_threads()} threads"
    )
    print(f"{'':24}{'plain':>18}{'ours':>18}{'ratio':>16}")
    for train in (False, True):
        found = []
        for plain in (True, False):
            run = Run(
                arguments.clips,
                arguments.frames,
                tuple(arguments.stages),
                arguments.device,
                plain,
                train,
                arguments.repeats,
            )
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found.append(pool.apply(measure, (run,)))
        plain_cost, ours = found
        title = "forward and backward" if train else "forward"
        cells = "".join(f"{cost.seconds:9.2f} s{cost.mib:6.0f}M" for cost in found)
        print(
            f"{title:24}{cells}   {ours.seconds / plain_cost.seconds:.2f} time "
            f"{ours.mib / plain_cost.mib:.2f} memory"
        )


def measure(run: Run) -> Cost:
    """Time and memory of this process after running the network."""
    if run.plain:
        ciau.related_channels = plain_related_channels
    torch.manual_seed(0)
    spec = get_arch("iaunet")
    config = spec.config(stages=run.stages)
    model = spec.build(config, num_ids=0, input_size=spec.input_size).to(run.device)
    model.train(run.train)
    images = torch.randn(run.clips, run.frames, 3, *spec.input_size, device=run.device)
    before, seconds = resident(run.device), []
    for _ in range(run.repeats):
        started = time.perf_counter()
        with torch.set_grad_enabled(run.train):
            features = model(images).features
        if run.train:
            features.square().sum().backward()
            model.zero_grad(set_to_none=True)
        if run.device.startswith("cuda"):
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return Cost(min(seconds), peak(run.device) - before)


def plain_related_channels(x: Tensor) -> Tensor:
    """softmax(X Xᵀ) X as in the paper's equations."""
    nodes = x.float().flatten(3).flatten(1, 2)
    return ((nodes @ nodes.mT).softmax(-1) @ nodes).reshape(x.shape)


def resident(device: str) -> float:
    """MiB in use now."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 2**20
    with open("/proc/self/statm") as file:  # noqa: PTH123  # not a regular file
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def peak(device: str) -> float:
    """Peak MiB since the process started (on CUDA: since `resident` was called)."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
