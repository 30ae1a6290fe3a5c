"""A run that receives a signal after a step, as do its data loading processes, in its own
process."""

import os
from pathlib import Path

import torch
from killed_run import settings

from reidkit.data.manifest import open_dataset
from reidkit.training.trainer import Callbacks, RunOptions, Trainer


def main(data: str, folder: str, number: int, resume: bool) -> None:
    """Exits with 7 when the signal ended the run."""
    torch.set_num_threads(1)
    os.setpgrp()  # so that the signal reaches this run only

    def on_step(epoch: int, step: int, steps: int) -> None:
        if (epoch, step) == (1, 2) and not resume:
            os.killpg(0, number)

    trainer = Trainer(
        settings(),
        open_dataset(data),
        folder=Path(folder),
        masks=None,
        device=torch.device("cpu"),
        callbacks=Callbacks(on_step=on_step),
        options=RunOptions(workers=1, keep_resume=True),
    )
    try:
        trainer.fit(resume=resume)
    except KeyboardInterrupt:
        os._exit(7)
