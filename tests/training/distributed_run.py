"""The work of one process of a group; test_distributed.py starts several."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from reidkit.config import Layer, RunConfig, ScheduleConfig, load_run_config, preset_layer
from reidkit.data.manifest import open_dataset
from reidkit.runtime.distributed import ProcessGroup, join_process_group
from reidkit.training.trainer import RunOptions, Trainer
from reidkit.types import Batch, ModelOutput

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


def interrupted(data: str, out: str, distance: str, rank: int, size: int, port: int) -> None:
    """A run whose processes receive SIGTERM in the first epoch, each at another step."""
    join(rank, size, port)
    with join_process_group("cpu") as (group, _):
        trainer = Trainer(
            replace(settings(distance), schedule=ScheduleConfig(epochs=3)),
            open_dataset(data),
            folder=Path(out),
            masks=None,
            device=torch.device("cpu"),
            options=RunOptions(workers=0),
            group=group,
        )
        steps = 0
        losses = trainer.losses

        def signalled(batch: Batch) -> tuple[ModelOutput, dict[str, Tensor]]:
            nonlocal steps
            steps += 1
            if steps == 1 + rank:
                os.kill(os.getpid(), signal.SIGTERM)
            return losses(batch)

        trainer.losses = signalled  # type: ignore[method-assign]
        try:
            trainer.fit()
        except KeyboardInterrupt:
            return
        raise AssertionError("the run was not interrupted")
