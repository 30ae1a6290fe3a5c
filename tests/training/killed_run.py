"""A run that kills itself (signal 9) after a step, or resumes (`kill_epoch` -1), in its own
process."""

import os
import signal
from pathlib import Path

import torch

from reidkit.config import Layer, RunConfig, load_run_config, preset_layer
from reidkit.data.manifest import open_dataset
from reidkit.training.trainer import Callbacks, RunOptions, Trainer


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


def main(data: str, folder: str, workers: int, kill_epoch: int, kill_step: int) -> None:
    torch.set_num_threads(1)

    def on_step(epoch: int, step: int, steps: int) -> None:
        if (epoch, step) == (kill_epoch, kill_step):
            os.kill(os.getpid(), signal.SIGKILL)

    Trainer(
        settings(),
        open_dataset(data),
        folder=Path(folder),
        masks=None,
        device=torch.device("cpu"),
        callbacks=Callbacks(on_step=on_step),
        # a resume point after every step until it is killed, and after the last one
        options=RunOptions(
            workers=workers, save_seconds=0.0 if kill_epoch in (1, 2) else 1e9, keep_resume=True
        ),
    ).fit(resume=kill_epoch < 0)
