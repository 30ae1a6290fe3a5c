"""What a run needs to go on where it stopped, with the same bits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reidkit.errors import CheckpointError
from reidkit.files import atomic

FILE = "resume.pt"


@dataclass(frozen=True)
class State:
    """Where a run stands: before the first step of `epoch`."""

    epoch: int
    best: float  # rank-1 of the best evaluation so far; -1 before the first
    seconds: float  # spent training so far


def save_state(
    folder: Path,
    state: State,
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> None:
    """Writes resume.pt, atomically: weights, optimiser, scaler, random generators, position."""
    document = {
        "position": [state.epoch, state.best, state.seconds],
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    with atomic(folder / FILE) as partial:
        torch.save(document, partial)


def load_state(
    folder: Path,
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> State:
    """Puts everything back as `save_state` found it.

    Raises:
        CheckpointError: if the file is missing or damaged.
    """
    path = folder / FILE
    document = _read(path)
    model.load_state_dict(document["model"])
    optimizer.load_state_dict(document["optimizer"])
    scaler.load_state_dict(document["scaler"])
    torch.set_rng_state(document["rng"])
    if document["cuda_rng"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(document["cuda_rng"])
    epoch, best, seconds = document["position"]
    return State(epoch, best, seconds)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(
            f"{path} is missing: the run stopped before its first epoch ended. Start it anew"
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
