"""A run that kills itself (signal 9) after a step, or goes on (`die_epoch` -1), in a process of
its own."""

import os
import signal
from pathlib import Path

import torch

from reidkit.config import Layer, RunConfig, load_run_config, preset_layer
from reidkit.data.manifest import open_dataset
from reidkit.training.run import Watch, run


def settings(**tables: object) -> RunConfig:
    small = {
        "arch": {"name": "pfsa", "backbone": "resnet18"},  # has dropout, its recipe erases by noise
        "input": {"size": [96, 32]},
        "sampler": {"batch": 16},
        "optim": {"lr": 0.01, "ema": 0.9},
        "schedule": {"epochs": 2},
        "test": {"every": 0},
        "weights": "none",
        "precision": "fp32",
    }
    return load_run_config([preset_layer("pfsa"), Layer("test", small), Layer("test", tables)])


def main(data: str, folder: str, workers: int, die_epoch: int, die_step: int) -> None:
    torch.set_num_threads(1)

    def on_step(epoch: int, step: int, steps: int) -> None:
        if (epoch, step) == (die_epoch, die_step):
            os.kill(os.getpid(), signal.SIGKILL)

    run(
        settings(),
        open_dataset(data),
        folder=Path(folder),
        masks=None,
        device=torch.device("cpu"),
        workers=workers,
        resume=die_epoch < 0,
        watch=Watch(on_step=on_step),
        save_seconds=0.0,  # a state after every step
    )
