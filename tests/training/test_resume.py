"""A run that is killed at any step and resumed ends with the bits of an uninterrupted one."""

from __future__ import annotations

import multiprocessing
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from interrupted_run import main as interrupted
from killed_run import main, settings

from reidkit.data.manifest import open_dataset
from reidkit.errors import CheckpointError
from reidkit.training.checkpoints import read_resume_point
from reidkit.training.logging import read_history
from reidkit.training.trainer import RunOptions, Trainer

# A server that has imported torch once forks a fresh process for every run.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["killed_run", "interrupted_run"])


def run_process(market: Path, folder: Path, *, workers: int, epoch: int, step: int) -> int:
    process = PROCESSES.Process(target=main, args=(str(market), str(folder), workers, epoch, step))
    process.start()
    process.join(300)
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode


@pytest.fixture(scope="module")
def whole(market: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert run_process(market, folder, workers=0, epoch=99, step=99) == 0
    return folder


def same_bits(first: object, second: object) -> bool:
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and torch.equal(first, second)
    if isinstance(first, dict):
        assert isinstance(second, dict)
        return first.keys() == second.keys() and all(same_bits(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple):
        assert isinstance(second, list | tuple)
        return len(first) == len(second) and all(map(same_bits, first, second))
    return first == second


@pytest.mark.parametrize(("workers", "epoch", "step"), [(0, 2, 2), (2, 1, 2)])
def test_a_run_killed_in_the_middle_of_an_epoch_ends_with_the_same_bits(
    market: Path, whole: Path, tmp_path: Path, workers: int, epoch: int, step: int
) -> None:
    folder = tmp_path / "killed"
    killed = run_process(market, folder, workers=workers, epoch=epoch, step=step)
    assert killed == -signal.SIGKILL
    position = read_resume_point(folder)["position"]
    assert position[:2] == [epoch - 1, step - 1]  # the resume point before the killed step
    assert run_process(market, folder, workers=workers, epoch=-1, step=0) == 0
    once, twice = read_resume_point(whole), read_resume_point(folder)
    for part in ("model", "optimizer", "ema", "random"):
        assert same_bits(once[part], twice[part]), part
    for name in ("lr", "losses", "accuracy", "images"):
        assert [r[name] for r in read_history(whole)] == [r[name] for r in read_history(folder)]
    models = [(run / "last.safetensors").read_bytes() for run in (whole, folder)]
    assert models[0] == models[1]


def interrupt(market: Path, folder: Path, number: int, *, again: bool) -> int | None:
    process = PROCESSES.Process(target=interrupted, args=(str(market), str(folder), number, again))
    process.start()
    process.join(300)
    return process.exitcode


def test_an_interrupt_saves_the_step(market: Path, tmp_path: Path) -> None:
    assert interrupt(market, tmp_path / "run", signal.SIGINT, again=False) == 7
    assert read_resume_point(tmp_path / "run")["position"][:2] == [0, 2]


def test_a_signal_saves_the_step_and_the_resumed_run_ends_with_the_same_bits(
    market: Path, whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "interrupted"
    assert interrupt(market, folder, signal.SIGTERM, again=False) == 7
    assert read_resume_point(folder)["position"][:2] == [0, 2]
    assert interrupt(market, folder, signal.SIGTERM, again=True) == 0
    once, twice = read_resume_point(whole), read_resume_point(folder)
    assert all(same_bits(once[part], twice[part]) for part in ("model", "optimizer", "ema"))


def test_a_completed_run_is_extended_from_its_last_checkpoint(
    market: Path, whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    (folder / "resume.pt").unlink()
    resume(market, folder, schedule={"epochs": 3})
    assert "continuing from" in caplog.text and "with a new optimizer" in caplog.text
    assert "3 epochs instead of 2: the learning rate of epoch 3 is" in caplog.text
    assert [record["epoch"] for record in read_history(folder)] == [1, 2, 3]
    resume(market, folder, schedule={"epochs": 3})  # its config.toml has the new number
    with pytest.raises(CheckpointError, match=r"schedule\.epochs: 3, now 2"):
        resume(market, folder, schedule={"epochs": 2})


def resume(market: Path, folder: Path, **tables: object) -> None:
    Trainer(
        settings(**tables),
        open_dataset(str(market)),
        folder=folder,
        masks=None,
        device=torch.device("cpu"),
        options=RunOptions(workers=0, keep_resume=True),
    ).fit(resume=True)


def test_a_changed_recipe_is_refused_with_the_difference(market: Path, whole: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        resume(market, whole, optim={"lr": 0.5}, augment={"flip": 0.25})
    message = str(caught.value)
    assert "augment.flip: 0.5, now 0.25" in message and "optim.lr: 0.01, now 0.5" in message
    assert "schedule" not in message


def test_changed_data_are_refused_with_the_difference(
    market: Path, whole: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "market"
    subprocess.run(["cp", "-r", market, copy], check=True)
    victim = sorted((copy / "bounding_box_train").glob("*.jpg"))[0]
    before = len(list(victim.parent.glob("*.jpg")))
    victim.unlink()
    with pytest.raises(CheckpointError, match=rf"train: {before}, now {before - 1}.*fingerprint"):
        resume(copy, whole)


def test_a_moved_data_set_is_accepted(market: Path, whole: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    subprocess.run(["cp", "-r", market, copy], check=True)
    resume(copy, whole)  # the run is complete: nothing to do, and no error
