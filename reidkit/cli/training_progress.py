"""What `train`, `reproduce` and `demo` show while a network trains."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from reidkit.cli.output import progress_bar

if TYPE_CHECKING:
    from reidkit.evaluation import EvaluationResult
    from reidkit.training.logging import EpochSummary
    from reidkit.training.trainer import Callbacks

log = logging.getLogger(__name__)


def log_callbacks(epochs: int) -> Callbacks:
    """Callbacks that log one line per epoch and per evaluation."""
    from reidkit.training.logging import evaluation_line
    from reidkit.training.trainer import Callbacks

    def on_epoch(summary: EpochSummary) -> None:
        log.info("%s", summary.line(epochs))

    def on_evaluation(epoch: int, result: EvaluationResult) -> None:
        log.info("%s", evaluation_line(epoch, result))

    return Callbacks(on_epoch=on_epoch, on_evaluation=on_evaluation)


@contextlib.contextmanager
def training_progress(epochs: int, *, shown: bool) -> Iterator[Callbacks]:
    """Callbacks that log epochs and evaluations, and show a progress bar with losses, steps per
    second and memory on a terminal."""
    from reidkit.training.trainer import Callbacks

    if not shown:
        yield Callbacks()
        return
    callbacks = log_callbacks(epochs)
    if not sys.stderr.isatty():
        yield callbacks
        return

    with progress_bar("training") as update:

        def on_step(epoch: int, step: int, steps: int) -> None:
            update(completed=epoch * steps + step, total=epochs * steps)

        def on_losses(losses: dict[str, float]) -> None:
            text = "  ".join(f"{name} {value:.3f}" for name, value in losses.items())
            update(note=f"{text}  {_memory()}")

        yield dataclasses.replace(callbacks, on_step=on_step, on_losses=on_losses)


def _memory() -> str:
    import torch

    from reidkit.training.diagnostics import peak_memory

    kind = "cuda" if torch.cuda.is_available() else "cpu"
    return f"{peak_memory(torch.device(kind)) / 2**30:.1f} GiB"
