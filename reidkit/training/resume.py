"""What a run needs to go on where it stopped, with the same bits."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reidkit.config import differences
from reidkit.errors import CheckpointError
from reidkit.files import atomic
from reidkit.runtime.distributed import SINGLE_PROCESS, ProcessGroup
from reidkit.training.ema import MovingAverage
from reidkit.training.loop import Tally

FILE = "resume.pt"


@dataclass(frozen=True)
class State:
    """Where a run stands: before `step` of `epoch`.

    Attributes:
        best: rank-1 of the best evaluation so far; -1 before the first.
        seconds: spent training in the epochs before this one.
        tally: of this epoch's steps so far.
    """

    epoch: int = 0
    step: int = 0
    best: float = -1.0
    seconds: float = 0.0
    tally: Tally = field(default_factory=Tally)


@dataclass(frozen=True)
class Learner:
    """Everything that learning changes."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: MovingAverage | None = None


def save_state(
    folder: Path, state: State, learner: Learner, *, group: ProcessGroup = SINGLE_PROCESS
) -> None:
    """Writes resume.pt, atomically. Every process of the group calls it; the leading one writes."""
    random = group.gather(_random_states())
    if not group.is_main:
        return
    tally = state.tally.to(torch.device("cpu"))
    document = {
        "position": [state.epoch, state.step, state.best, state.seconds],
        "tally": [tally.losses, tally.right, tally.bad, tally.images, tally.seconds],
        "model": learner.model.state_dict(),
        "optimizer": learner.optimizer.state_dict(),
        "scaler": learner.scaler.state_dict(),
        "average": learner.average.weights if learner.average else [],
        "random": random,
    }
    with atomic(folder / FILE) as partial:
        torch.save(document, partial)


def load_state(folder: Path, learner: Learner, *, group: ProcessGroup = SINGLE_PROCESS) -> State:
    """Puts everything back as `save_state` found it.

    Raises:
        CheckpointError: if the file is missing or damaged, or is of another number of processes.
    """
    document = read_state(folder)
    if len(document["random"]) != group.size:
        raise CheckpointError(
            f"{folder / FILE} was written by {len(document['random'])} processes, this is "
            f"{group.size}: the bits would differ. Start as many as before"
        )
    learner.model.load_state_dict(document["model"])
    learner.optimizer.load_state_dict(document["optimizer"])
    learner.scaler.load_state_dict(document["scaler"])
    if learner.average is not None:
        for own, saved in zip(learner.average.weights, document["average"], strict=True):
            own.copy_(saved)
    host, devices = document["random"][group.rank]
    torch.set_rng_state(host)
    if devices and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(devices)
    epoch, step, best, seconds = document["position"]
    return State(epoch, step, best, seconds, Tally(*document["tally"]))


def read_state(folder: Path) -> dict[str, Any]:
    """What resume.pt holds, on the CPU.

    Raises:
        CheckpointError: if it is missing or damaged.
    """
    path = folder / FILE
    if not path.is_file():
        raise CheckpointError(
            f"{path} is missing: the run stopped before its first step. Start it anew"
        )
    try:
        document: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, OSError) as error:
        raise CheckpointError(f"{path} is damaged. Start the run anew") from error
    except Exception as error:  # pickle.UnpicklingError, whose text tells how to switch safety off
        raise CheckpointError(
            f"{path} holds more than tensors and numbers: reidkit did not write it"
        ) from error
    return document


def check_same(folder: Path, what: str, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuses to go on with other data or another recipe.

    Raises:
        CheckpointError: naming every difference.
    """
    changed = differences(before, now)
    if changed:
        raise CheckpointError(
            f"{folder} cannot go on, its {what} differ: {'; '.join(changed)}. "
            "Put them back, or start a new run without --resume"
        )


def _random_states() -> tuple[Tensor, list[Tensor]]:
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return torch.get_rng_state(), devices
