"""What a run records: running means, metrics.jsonl, metrics.csv, curves.png, train.log and
TensorBoard events."""

from __future__ import annotations

import csv
import dataclasses
import json
import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reidkit.errors import CheckpointError, RuntimeMissing
from reidkit.evaluation import RANKS, EvaluationResult, percentages
from reidkit.files import atomic, check_regular, write_error
from reidkit.runtime.distributed import ProcessGroup
from reidkit.types import ModelOutput

log = logging.getLogger(__name__)

HELD_OUT = " validation"
"""End of the name of the data set that consists of held-out identities."""

MAX_EPOCH = 10**9
CURVES_SECONDS = 20.0
"""Least time between two plots of the curves."""


@dataclass
class RunningMetrics:
    """Sums over the steps of an epoch so far, on the device, so that no step waits for them.

    Attributes:
        losses: by name, unweighted; "total" is their weighted sum.
        correct: training images that the first classifier assigns to their identity.
        first_nonfinite: the first step whose loss was not finite; -1: none.
        seconds: training time of the epoch so far.
    """

    losses: dict[str, Tensor] = field(default_factory=dict)
    correct: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.long))
    first_nonfinite: Tensor = field(default_factory=lambda: torch.tensor(-1))
    images: int = 0
    seconds: float = 0.0

    def to(self, device: torch.device) -> RunningMetrics:
        losses = {name: value.to(device) for name, value in self.losses.items()}
        correct, first_nonfinite = self.correct.to(device), self.first_nonfinite.to(device)
        return RunningMetrics(losses, correct, first_nonfinite, self.images, self.seconds)

    def add(
        self, step: int, losses: dict[str, Tensor], output: ModelOutput, labels: Tensor
    ) -> None:
        """Adds a step; nothing is copied to the host."""
        losses = {name: value.detach() for name, value in losses.items()}
        logits = (output.logits or output.part_logits)[0]
        self.losses = {name: self.losses.get(name, 0) + value for name, value in losses.items()}
        self.correct = self.correct + (logits.argmax(1) == labels).sum()
        self.images += len(labels)
        known = torch.isfinite(losses["total"]) | (self.first_nonfinite >= 0)
        self.first_nonfinite = torch.where(known, self.first_nonfinite, step)

    def means(self, steps: int) -> dict[str, float]:
        """Mean losses over `steps` steps. The host waits for the device here, and only here."""
        return {name: value.item() / steps for name, value in self.losses.items()}


@dataclass(frozen=True)
class EpochSummary:
    """Means over an epoch.

    Attributes:
        epoch: from 1.
        lr: learning rate of the last step.
        losses: by name, unweighted; "total" is their weighted sum.
        accuracy: fraction of training images that the first classifier gets right.
        images, seconds: number of training images and the time they took.
        memory: peak bytes so far, of the device (of the process on a CPU).
    """

    epoch: int
    lr: float
    losses: dict[str, float]
    accuracy: float
    images: int
    seconds: float
    memory: int = 0

    def reduce(self, group: ProcessGroup) -> EpochSummary:
        """Means over all processes, whose batches are of equal size."""
        everyone = group.gather(self)
        return dataclasses.replace(
            self,
            losses={
                name: sum(other.losses[name] for other in everyone) / len(everyone)
                for name in self.losses
            },
            accuracy=sum(other.accuracy for other in everyone) / len(everyone),
            images=sum(other.images for other in everyone),
        )

    def line(self, epochs: int) -> str:
        """One line for people."""
        losses = "  ".join(f"{name} {value:.3f}" for name, value in self.losses.items())
        return (
            f"epoch {self.epoch}/{epochs}  lr {self.lr:.2e}  {losses}  accuracy "
            f"{self.accuracy:.1%}  {self.images / self.seconds:.0f} images/s  "
            f"{self.memory / 2**30:.1f} GiB"
        )


def evaluation_line(epoch: int, result: EvaluationResult) -> str:
    """One evaluation for people."""
    where = "held-out identities" if result.dataset.endswith(HELD_OUT) else "test set"
    return f"epoch {epoch}, {where}: {result.summary()}"


class RunLogger:
    """The record of a run, epoch by epoch; every file on disk is complete at any time.

    Args:
        folder: the run folder. With `enabled` False (all processes but the main one) nothing is
            written.
    """

    def __init__(self, folder: Path, *, enabled: bool = True, tensorboard: bool = False) -> None:
        self.folder = folder
        self.enabled = enabled
        self.writer = _tensorboard_writer(folder) if enabled and tensorboard else None
        self.last_plot = 0.0

    def message(self, line: str) -> None:
        """Appends a line with date and time to train.log.

        Raises:
            ReidkitError: that is not possible.
        """
        if self.enabled:
            path = self.folder / "train.log"
            try:
                with path.open("a") as file:
                    file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {line}\n")
            except OSError as error:
                raise write_error(path, error) from error

    def epoch(self, record: dict[str, Any], *, last: bool) -> None:
        """Appends an epoch to metrics.jsonl and rewrites metrics.csv, and now and then the curves.

        Records of the same or a later epoch, left by a run that was killed, are replaced.
        """
        if not self.enabled:
            return
        earlier = [r for r in read_history(self.folder) if r["epoch"] < record["epoch"]]
        records = [*earlier, record]
        with atomic(self.folder / "metrics.jsonl") as file:
            file.write_text("".join(json.dumps(r) + "\n" for r in records))
        rows = [flatten(r) for r in records]
        columns = list(dict.fromkeys(name for row in rows for name in row))
        with atomic(self.folder / "metrics.csv") as file, file.open("w", newline="") as text:
            writer = csv.DictWriter(text, columns)
            writer.writeheader()
            writer.writerows(rows)
        if self.writer is not None:
            for name, value in rows[-1].items():
                self.writer.add_scalar(name, value, record["epoch"])
            self.writer.flush()
        if last or time.monotonic() - self.last_plot > CURVES_SECONDS:
            plot_training_curves(records, self.folder / "curves.png")
            self.last_plot = time.monotonic()

    @contextmanager
    def capture_warnings(self) -> Iterator[None]:
        """Within, reidkit's warnings are also appended to train.log."""
        if not self.enabled:
            yield
            return
        handler = logging.FileHandler(self.folder / "train.log", delay=True)
        handler.setLevel(logging.WARNING)
        handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%Y-%m-%d %H:%M:%S"))
        logger = logging.getLogger("reidkit")
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            handler.close()


def read_history(folder: Path) -> list[dict[str, Any]]:
    """The epochs in metrics.jsonl; empty if there is none. A last line that a crash has cut off is
    left out with a warning.

    Raises:
        CheckpointError: another line is not the record of an epoch.
    """
    path = folder / "metrics.jsonl"
    check_regular(path, CheckpointError)
    if not path.exists():
        return []
    records = []
    lines = path.read_text(errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if _is_record(record):
            records.append(record)
        elif number == len(lines):
            log.warning("%s: the last line is cut off and was left out", path)
        else:
            raise CheckpointError(
                f"{path}: line {number} is not the record of an epoch. Remove the line, or the file"
            )
    return records


def _is_record(record: Any) -> bool:
    """Whether a line of metrics.jsonl has what the curves and metrics.csv are made of."""
    if not isinstance(record, dict) or not isinstance(record.get("losses"), dict):
        return False
    numbers = [record.get("lr"), record.get("accuracy"), *record["losses"].values()]
    scores = [record[key] for key in ("test", "validation") if key in record]
    try:
        for score in scores:
            percentages(score)
    except (KeyError, TypeError, AttributeError):
        return False
    epoch = record.get("epoch")
    if not isinstance(epoch, int) or not 0 <= epoch <= MAX_EPOCH:
        return False
    # A float32 is below 1e39; matplotlib's ticks overflow near the largest float64
    return all(isinstance(n, int | float) and not 1e100 < abs(n) < math.inf for n in numbers)


def flatten(record: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """{"losses": {"total": 1}} -> {"losses.total": 1}: numbers, and of the CMC some ranks."""
    row: dict[str, float] = {}
    for name, value in record.items():
        if isinstance(value, dict):
            row |= flatten(value, f"{prefix}{name}.")
        elif name == "cmc":
            row |= {f"{prefix}rank-{k}": value[k - 1] for k in RANKS if k <= len(value)}
        elif isinstance(value, int | float):
            row[prefix + name] = value
    return row


def plot_training_curves(records: list[dict[str, Any]], path: Path) -> None:
    """Writes a PNG: losses, learning rate and evaluation results over epochs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(12, 3.6))  # a layout engine would render everything twice
    FigureCanvasAgg(figure)
    margins = {"left": 0.05, "right": 0.99, "bottom": 0.14, "top": 0.91, "wspace": 0.2}
    losses, rates, scores = figure.subplots(1, 3, gridspec_kw=margins)
    epochs = [r["epoch"] for r in records]
    for name in dict.fromkeys(name for r in records for name in r["losses"]):
        style = {"linewidth": 2.2, "color": "black"} if name == "total" else {}
        values = [r["losses"].get(name, float("nan")) for r in records]
        losses.plot(epochs, values, label=name, marker=".", **style)
    losses.set_title("losses (unweighted)")
    losses.legend(frameon=False)
    rates.plot(epochs, [r["lr"] for r in records], marker=".")
    rates.set_yscale("log")
    rates.set_title("learning rate")
    for key, title in (("test", "test set"), ("validation", "validation")):
        evaluated = [(r["epoch"], percentages(r[key])) for r in records if key in r]
        for name in list(evaluated[0][1])[:2] if evaluated else ():
            at = [epoch for epoch, _ in evaluated]
            scores.plot(at, [found[name] for _, found in evaluated], "o-", label=f"{name}, {title}")
    scores.plot(epochs, [100 * r["accuracy"] for r in records], ":", label="accuracy, training")
    scores.legend(frameon=False)
    scores.set_title("scores (%)")
    for axes in (losses, rates, scores):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    with atomic(path) as partial:
        figure.savefig(partial, format="png", dpi=110)


def _tensorboard_writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise RuntimeMissing(
            "--tensorboard needs the tensorboard package. "
            "Install it: pip install 'reidkit[tensorboard]'"
        ) from error
    return SummaryWriter(str(folder / "tensorboard"))
