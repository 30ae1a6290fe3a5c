"""The files of a run folder: settings, checkpoints, and the resume point.

`resume.pt` restores a run to the bit: weights, optimizer, scaler, moving average, random states,
and the position within the epoch with its running metrics.
"""

from __future__ import annotations

import dataclasses
import pickle
import shlex
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reidkit import checkpoint
from reidkit.config import RunConfig, ScheduleConfig, differences, read_toml, to_table, to_toml
from reidkit.data.loading import Masks
from reidkit.errors import CheckpointError, ConfigError
from reidkit.evaluation import percentages
from reidkit.files import atomic, check_regular, os_error_text
from reidkit.runtime.distributed import ProcessGroup
from reidkit.training.logging import RunningMetrics
from reidkit.training.optim import TrainState
from reidkit.types import Dataset

BEST = "model.safetensors"
LAST = "last.safetensors"
RESUME = "resume.pt"
SETTINGS = "config.toml"

_ADAM_STATE = {"step", "exp_avg", "exp_avg_sq"}
CONTENTS = {"position", "running", "model", "optimizer", "scaler", "ema", "random"}
"""Of resume.pt."""


@dataclass(frozen=True)
class Position:
    """The point a run has reached: before `step` of `epoch`, both from 0.

    Attributes:
        best: score of the best evaluation so far (rank-1, or top-1); -1 before the first.
        unimproved: evaluations since then.
        running: metrics of this epoch's steps so far.
    """

    epoch: int = 0
    step: int = 0
    best: float = -1.0
    unimproved: int = 0
    running: RunningMetrics = field(default_factory=RunningMetrics)


def new_folder(arch: str, dataset: str, runs: Path = Path("runs")) -> Path:
    """runs/<arch>-<dataset>-<time>, a folder that does not exist yet."""
    stem = f"{arch.replace('/', '-')}-{dataset}-{datetime.now():%Y%m%d-%H%M%S}"
    folder, number = runs / stem, 2
    while folder.exists():
        folder, number = runs / f"{stem}-{number}", number + 1
    return folder


def create_folder(folder: Path) -> None:
    """Creates a run folder.

    Raises:
        ConfigError: if that is not possible.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot create the run folder {folder}: {os_error_text(error)}. "
            "Choose another folder with -o"
        ) from error


def write_settings(
    folder: Path, config: RunConfig, dataset: Dataset, masks: Masks | None = None
) -> None:
    """Writes config.toml: the settings, and what the run is trained on."""
    data = _dataset_table(dataset, masks)
    with atomic(folder / SETTINGS) as partial:
        partial.write_text(to_toml({**to_table(config), "dataset": data}))


def check_settings(
    folder: Path, config: RunConfig, dataset: Dataset, masks: Masks | None = None
) -> ScheduleConfig:
    """Checks that a run folder was written with these settings, this data set and these part masks,
    wherever the data are now. Only the number of epochs may have grown.

    Returns:
        the schedule that the run had.
    Raises:
        ConfigError: if there is no run in the folder.
        CheckpointError: naming every difference.
    """
    if not (folder / SETTINGS).is_file():
        raise ConfigError(
            f"{folder} is not a run folder ({SETTINGS} is missing). "
            "Start a new run without --resume"
        )
    before = read_toml(folder / SETTINGS)
    schedule = before.setdefault("schedule", {})
    data_before = before.pop("dataset", {})
    if not (isinstance(schedule, dict) and isinstance(data_before, dict)):
        raise CheckpointError(f"{folder / SETTINGS}: [schedule] and [dataset] must be tables")
    epochs = schedule.get("epochs", config.schedule.epochs)
    if not isinstance(epochs, int):
        raise CheckpointError(f"{folder / SETTINGS}: schedule.epochs must be a whole number")
    earlier = dataclasses.replace(config.schedule, epochs=epochs)
    if earlier.epochs <= config.schedule.epochs:
        schedule["epochs"] = config.schedule.epochs
    data_now = _dataset_table(dataset, masks)
    for table in (data_before, data_now):
        table.pop("root", None)
    for what, then, now in (
        ("training data", data_before, data_now),
        ("settings", before, to_table(config)),
    ):
        changed = differences(then, now)
        if changed:
            raise CheckpointError(
                f"cannot resume {folder}: its {what} differ: {'; '.join(changed)}. "
                "Restore them, or start a new run without --resume"
            )
    return earlier


def _dataset_table(dataset: Dataset, masks: Masks | None) -> dict[str, Any]:
    return {
        "name": dataset.name,
        "root": str((dataset.folder or dataset.root).resolve()),
        "identities": len({item.pid for item in dataset.train}),
        "train": len(dataset.train),
        "query": len(dataset.query),
        "gallery": len(dataset.gallery),
        "fingerprint": dataset.fingerprint,
        **({"masks": masks.fingerprint} if masks else {}),
    }


def save_resume_point(
    folder: Path, position: Position, state: TrainState, group: ProcessGroup
) -> None:
    """Writes resume.pt atomically. Every process of the group calls it; the main one writes."""
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    random_states = group.gather((torch.get_rng_state(), devices))
    if not group.is_main:
        return
    running = position.running.to(torch.device("cpu"))
    document = {
        "position": [position.epoch, position.step, position.best, position.unimproved],
        "running": [getattr(running, f.name) for f in dataclasses.fields(running)],
        "model": state.model.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "scaler": state.scaler.state_dict(),
        "ema": state.ema.state_dict() if state.ema else {},
        "random": random_states,
    }
    with atomic(folder / RESUME) as partial, partial.open("wb") as file:
        try:
            torch.save(document, file)
        except RuntimeError as error:  # about positions, when the disk is full
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def load_resume_point(folder: Path, state: TrainState, group: ProcessGroup) -> Position:
    """Restores `state` and the random generators to what `save_resume_point` saved.

    Raises:
        CheckpointError: if the file is missing, damaged, or of another number of processes.
    """
    document = read_resume_point(folder)
    random_states: list[tuple[Tensor, list[Tensor]]] = document["random"]
    if len(random_states) != group.size:
        raise CheckpointError(
            f"{folder / RESUME} was written by {len(random_states)} processes and this is "
            f"{group.size}, which cannot resume to the bit. "
            f"Resume with {len(random_states)} processes"
        )
    with _refuse_damaged(folder):
        state.model.load_state_dict(document["model"])
        options = _options(state.optimizer)
        state.optimizer.load_state_dict(document["optimizer"])
        if _options(state.optimizer) != options:
            raise ValueError("the optimizer's options are not those of the settings")
        _check_optimizer(state.optimizer)
        state.scaler.load_state_dict(document["scaler"])
        if state.ema is not None:
            state.ema.load_state_dict(document["ema"])
        host, devices = random_states[group.rank]
        torch.set_rng_state(host)
        if devices and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(devices)
        return _position(document)


def _tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in nested tables and lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _tensors(inner)


def _position(document: dict[str, Any]) -> Position:
    """Raises ValueError unless every field is of its type and within its range."""
    epoch, step, best, unimproved = document["position"]
    losses, correct, first_nonfinite, images, seconds = document["running"]
    whole = all(isinstance(n, int) and n >= 0 for n in (epoch, step, unimproved, images))
    numbers = all(isinstance(number, int | float) for number in (best, seconds))
    scalars = [correct, first_nonfinite, *losses.values()]
    if not (whole and numbers and all(isinstance(s, Tensor) and s.ndim == 0 for s in scalars)):
        raise ValueError("its position or its running metrics are not numbers")
    if not all(isinstance(name, str) for name in losses) or bool(losses) != bool(step):
        raise ValueError(f"it has running metrics of {len(losses)} losses after {step} steps")
    running = RunningMetrics(losses, correct, first_nonfinite, images, seconds)
    return Position(epoch, step, best, unimproved, running)


def _check_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """Raises ValueError if a parameter's state is not of its shape, which torch does not check."""
    expected = {"momentum_buffer"} if isinstance(optimizer, torch.optim.SGD) else _ADAM_STATE
    for parameter, entries in optimizer.state.items():
        if not isinstance(entries, dict) or (entries and entries.keys() != expected):
            raise ValueError(f"the optimizer's state has other entries than {sorted(expected)}")
        for name, value in entries.items():
            if name == "momentum_buffer" and value is None:
                continue
            if not isinstance(value, Tensor) or value.layout is not torch.strided or value.is_meta:
                raise ValueError(f"the optimizer's {name} is not a dense tensor")
            if value.shape != (() if name == "step" else parameter.shape):
                raise ValueError(f"the optimizer's {name} has the shape {tuple(value.shape)}")
            if not value.is_floating_point() or (name == "step" and not 0 <= value.item() < 1e15):
                raise ValueError(f"the optimizer's {name} does not contain numbers")


def _options(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """The options of each parameter group that the settings determine: all but the learning rate
    and those that torch chooses by device, of which the type matters."""

    def comparable(name: str, value: Any) -> Any:
        if value is None or isinstance(value, bool):
            return "flag"
        if name == "lr" and isinstance(value, int | float) and 0 <= value < 1e30:
            return "rate"
        return list(value) if isinstance(value, tuple) else value

    return [
        {name: comparable(name, value) for name, value in group.items() if name != "params"}
        for group in optimizer.param_groups
    ]


@contextmanager
def _refuse_damaged(folder: Path) -> Iterator[None]:
    """Turns what wrong contents of resume.pt cause into a CheckpointError with the way out."""
    path = folder / RESUME
    try:
        yield
    except (
        *(RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError),
        *(EOFError, OSError, AssertionError, ArithmeticError, MemoryError, struct.error),
    ) as error:
        advice = f"Start the run again without --resume: -o {shlex.quote(str(folder))}"
        if (folder / LAST).is_file():
            advice = (
                f"Continue from {LAST} with a new optimizer: rm {shlex.quote(str(path))}, and "
                "resume again"
            )
        reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        raise CheckpointError(f"{path} is damaged or was edited: {reason}. {advice}") from error


def has_run(folder: Path) -> bool:
    """Whether a folder contains a run that can be resumed or evaluated; one without a checkpoint
    whose resume point is missing or damaged is started again."""
    if any((folder / name).is_file() for name in (LAST, BEST)):
        return True
    try:
        read_resume_point(folder)
    except CheckpointError:
        return False
    return True


def completed(folder: Path) -> bool:
    """Whether a run has ended, and its resume point was removed."""
    return (folder / LAST).is_file() and not (folder / RESUME).is_file()


def load_last_checkpoint(folder: Path, state: TrainState) -> Position:
    """Restores the weights of a completed run from last.safetensors; the optimizer is new.

    With a moving average, both it and the weights continue from the average, which is what the
    checkpoint contains.
    """
    model, header = checkpoint.load(folder / LAST)
    state.model.load_state_dict(model.state_dict())
    if state.ema is not None:
        state.ema.module.load_state_dict(model.state_dict())
    best = checkpoint.read_header(folder / BEST).metrics
    scores = percentages(best.get("validation", best))
    return Position(
        int(header.metrics["epoch"]), best=scores.get("rank-1", scores.get("top-1", -1)) / 100
    )


def read_resume_point(folder: Path) -> dict[str, Any]:
    """The contents of resume.pt, on the CPU.

    Raises:
        CheckpointError: if it is missing or damaged.
    """
    path = folder / RESUME
    check_regular(path, CheckpointError)
    if not path.is_file():
        raise CheckpointError(
            f"{path} is missing: the run was stopped before its first step. "
            f"Start it again without --resume: -o {shlex.quote(str(folder))}"
        )
    with _refuse_damaged(folder):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about tensors that are refused below
                document = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:  # its text suggests to disable the check
            raise ValueError("it contains more than tensors and numbers") from error
        except (RuntimeError, LookupError, EOFError, AssertionError, struct.error) as error:
            raise ValueError("it is cut off, or of another kind") from error
        if not isinstance(document, dict) or document.keys() != CONTENTS:
            raise ValueError(f"expected {', '.join(sorted(CONTENTS))}")
        if any(tensor.is_complex() for tensor in _tensors(document)):
            raise ValueError("it contains complex numbers")
        if not isinstance(document["random"], list):
            raise ValueError("it has no random states")
    return document
