"""The work of one process of a group; test_distributed.py starts several."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from reidkit.config import Layer, RunConfig, load_run_config, preset_layer
from reidkit.data.manifest import open_dataset
from reidkit.runtime.distributed import ProcessGroup, join_process_group
from reidkit.training.trainer import RunOptions, Trainer
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


def train_steps(data: str, out: str, distance: str, rank: int, size: int, port: int) -> None:
    """Three steps in float64 on the batches of the first epoch; losses and weights into a file."""
    join(rank, size, port)
    torch.set_default_dtype(torch.float64)
    with join_process_group("cpu") as (group, _):
        cpu = torch.device("cpu")
        trainer = Trainer(
            settings(distance),
            open_dataset(data),
            folder=Path(out).parent,
            masks=None,
            device=cpu,
            group=group,
        )
        trainer.network.train()
        keys = iter(trainer.batches())
        losses = []
        for _ in range(STEPS):
            batch = trainer.images.finish(trainer.images.batch(next(keys)), cpu)
            wide = Batch(batch.images.double(), batch.labels, batch.camids)
            _, found = trainer.losses(wide)
            trainer.state.update(found["total"])
            losses.append({name: value.item() for name, value in found.items()})
        all_losses = group.gather(losses)
        if group.is_main:
            torch.save({"losses": all_losses, "model": trainer.model.state_dict()}, out)


def fit(data: str, out: str, distance: str, rank: int, size: int, port: int) -> None:
    """A whole run."""
    join(rank, size, port)
    with join_process_group("cpu") as (group, _):
        assert group == ProcessGroup(rank, size)
        Trainer(
            settings(distance),
            open_dataset(data),
            folder=Path(out),
            masks=None,
            device=torch.device("cpu"),
            options=RunOptions(workers=0),
            group=group,
        ).fit()
