"""A run whose data loading process is killed, or whose disk is full, stops by one line and is
resumed."""

from __future__ import annotations

import multiprocessing
import resource
import shutil
from pathlib import Path

import pytest
import torch
from test_trainer import settings

from reidkit.data.manifest import open_dataset
from reidkit.errors import ReidkitError
from reidkit.training.checkpoints import read_resume_point
from reidkit.training.diagnostics import LostWorker
from reidkit.training.trainer import Callbacks, RunOptions, Trainer


def trainer(
    market: Path, folder: Path, callbacks: Callbacks, *, workers: int, save_seconds: float = 1e9
) -> Trainer:
    return Trainer(
        settings(schedule={"epochs": 1}, test={"every": 0}, sampler={"batch": 8}),
        open_dataset(str(market)),
        folder=folder,
        masks=None,
        device=torch.device("cpu"),
        callbacks=callbacks,
        options=RunOptions(workers=workers, save_seconds=save_seconds),
    )


def test_a_killed_data_loading_process_is_named_and_the_run_is_resumed_from_its_last_step(
    market: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    last = 0

    def on_step(epoch: int, step: int, steps: int) -> None:
        nonlocal last
        last = step
        for worker in multiprocessing.active_children():
            worker.kill()
            worker.join()

    with pytest.raises(LostWorker, match=f"reidkit train --resume -o {folder} --workers 1"):
        trainer(market, folder, Callbacks(on_step=on_step), workers=1).fit()
    assert read_resume_point(folder)["position"][:2] == [0, last]
    assert trainer(market, folder, Callbacks(), workers=0).fit(resume=True).is_file()


def test_a_disk_that_is_full_while_a_resume_point_is_written_keeps_the_one_before(
    market: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def on_step(epoch: int, step: int, steps: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))

    try:
        with pytest.raises(ReidkitError, match=r"cannot write .*resume\.pt: File too large\. Free"):
            full = trainer(market, folder, Callbacks(on_step=on_step), workers=0, save_seconds=0.0)
            full.fit()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert read_resume_point(folder)["position"][:2] == [0, 0]
    shutil.rmtree(folder)  # its weights are large
