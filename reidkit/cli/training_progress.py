"""What `train`, `reproduce` and `demo` show while a network trains."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from reidkit.cli.output import progress_bars

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
    """Callbacks that log epochs and evaluations. On a terminal, a bar shows epoch, step, time left
    and total loss, and as much of the other losses, speed and memory as fits; a second one shows
    evaluations."""
    from reidkit.training.trainer import Callbacks

    if not shown:
        yield Callbacks()
        return
    callbacks = log_callbacks(epochs)
    if not sys.stderr.isatty():
        yield callbacks
        return

    with progress_bars() as add:
        training, evaluation = add("training", shown=False), add("evaluating", shown=False)
        width = len(str(epochs))

        def on_step(epoch: int, step: int, steps: int) -> None:
            evaluation(visible=False)
            training(
                visible=True,
                description=f"epoch {epoch:{width}}/{epochs}",
                completed=(epoch - 1) * steps + step,
                total=epochs * steps,
                count=f"{step:{len(str(steps))}}/{steps}",
            )

        def on_losses(losses: dict[str, float]) -> None:
            rest = {name: value for name, value in losses.items() if name != "total"}
            text = "  ".join(f"{name} {value:.3f}" for name, value in rest.items())
            training(main=f"loss {losses['total']:.3f}", note=f"{text}  {_memory()}")

        def on_progress(stage: str, done: int, total: int) -> None:
            evaluation(
                completed=done,
                total=total,
                count=f"{done:,}/{total:,}",
                note=stage,
                visible=done < total,
            )

        yield dataclasses.replace(
            callbacks, on_step=on_step, on_losses=on_losses, on_progress=on_progress
        )


def _memory() -> str:
    import torch

    from reidkit.training.diagnostics import peak_memory

    kind = "cuda" if torch.cuda.is_available() else "cpu"
    return f"{peak_memory(torch.device(kind)) / 2**30:.1f} GiB"
