"""What one process of a group does; for processes of their own, started by test_distributed.py."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from reidkit.config import Layer, RunConfig, load_run_config, preset_layer
from reidkit.data.manifest import open_dataset
from reidkit.runtime.distributed import ProcessGroup, join_process_group
from reidkit.training.run import run
from reidkit.training.setup import prepare
from reidkit.types import Batch

STEPS = 3


def settings(distance: str) -> RunConfig:
    small = {
        "arch": {"name": "iaunet", "backbone": "resnet18", "stages": [2]},
        "input": {"size": [64, 32]},
        "sampler": {"batch": 16},
        "loss": {"part_attention": 0.0, "distance": distance},
        "schedule": {"epochs": 1},
        "test": {"every": 1},
        "weights": "none",
        "precision": "fp32",
    }
    return load_run_config([preset_layer("iaunet"), Layer("test", small)])


def join(rank: int, size: int, port: int) -> None:
    if size > 1:
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)


def steps(data: str, out: str, distance: str, rank: int, size: int, port: int) -> None:
    """Three steps in float64 on the batches of the first epoch; losses and weights into a file."""
    join(rank, size, port)
    torch.set_default_dtype(torch.float64)
    with join_process_group("cpu") as (group, _):
        cpu = torch.device("cpu")
        config = settings(distance)
        setup = prepare(config, open_dataset(data), masks=None, device=cpu, group=group)
        setup.model.train()
        drawn = iter(setup.batches(epoch=0, step=0, group=group))
        losses = []
        for number in range(STEPS):
            batch = setup.images.finish(setup.images.__getitems__(next(drawn)), cpu)
            wide = Batch(batch.images.double(), batch.labels, batch.camids)
            found, _ = setup.stepper.step(wide, number=number)
            losses.append({name: value.item() for name, value in found.items()})
        everyones = group.gather(losses)
        if group.is_main:
            torch.save({"losses": everyones, "model": setup.model.state_dict()}, out)


def whole_run(data: str, out: str, distance: str, rank: int, size: int, port: int) -> None:
    """A run from its settings to its folder."""
    join(rank, size, port)
    with join_process_group("cpu") as (group, _):
        assert group == ProcessGroup(rank, size)
        cpu = torch.device("cpu")
        run(
            settings(distance),
            open_dataset(data),
            folder=Path(out),
            masks=None,
            device=cpu,
            workers=0,
            group=group,
        )
