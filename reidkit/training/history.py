"""A run's own record: metrics.jsonl, metrics.csv, curves.png, train.log, TensorBoard's events."""

from __future__ import annotations

import csv
import dataclasses
import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reidkit.errors import RuntimeMissing
from reidkit.files import atomic

if TYPE_CHECKING:
    from reidkit.retrieval import RetrievalMetrics
    from reidkit.training.loop import EpochReport

REDRAW_SECONDS = 20.0


def epoch_line(report: EpochReport, epochs: int) -> str:
    """One epoch for people."""
    losses = "  ".join(f"{name} {value:.3f}" for name, value in report.losses.items())
    return (
        f"epoch {report.epoch + 1}/{epochs}  lr {report.lr:.2e}  {losses}  accuracy "
        f"{report.accuracy:.1%}  {report.images / report.seconds:.0f} images/s  "
        f"{report.memory / 2**30:.1f} GiB"
    )


def evaluation_line(epoch: int, report: RetrievalMetrics) -> str:
    """One evaluation for people; `epoch` counts from 0."""
    return f"epoch {epoch + 1}: mAP {100 * report.mAP:.1f}  rank-1 {100 * report.rank(1):.1f}"


class History:
    """Adds an epoch at a time; what is on disk is always whole."""

    def __init__(self, folder: Path, *, tensorboard: bool = False) -> None:
        self.folder = folder
        self.writer = _tensorboard(folder) if tensorboard else None
        self.drawn = 0.0

    def add(self, record: dict[str, Any], *, last: bool) -> None:
        """Adds an epoch to metrics.jsonl and writes the other files anew from all of them."""
        path = self.folder / "metrics.jsonl"
        earlier = read_history(self.folder)
        records = [r for r in earlier if r["epoch"] < record["epoch"]] + [record]
        with atomic(path) as file:
            file.write_text("".join(json.dumps(r) + "\n" for r in records))
        rows = [flat(r) for r in records]
        columns = list(dict.fromkeys(name for row in rows for name in row))
        with atomic(self.folder / "metrics.csv") as file, file.open("w", newline="") as text:
            writer = csv.DictWriter(text, columns)
            writer.writeheader()
            writer.writerows(rows)
        if self.writer is not None:
            for name, value in rows[-1].items():
                self.writer.add_scalar(name, value, record["epoch"] + 1)
            self.writer.flush()
        if last or time.monotonic() - self.drawn > REDRAW_SECONDS:
            plot_curves(records, self.folder / "curves.png")
            self.drawn = time.monotonic()


def read_history(folder: Path) -> list[dict[str, Any]]:
    """The epochs in metrics.jsonl."""
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def flat(record: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """{"losses": {"total": 1}} -> {"losses.total": 1}, numbers alone."""
    row: dict[str, float] = {}
    for name, value in record.items():
        if isinstance(value, dict):
            row |= flat(value, f"{prefix}{name}.")
        elif isinstance(value, int | float):
            row[prefix + name] = value
    return row


def plot_curves(records: list[dict[str, Any]], path: Path) -> None:
    """A PNG: losses, learning rate, and what the evaluations gave, over epochs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    losses, rates, scores = figure.subplots(1, 3)
    epochs = [r["epoch"] + 1 for r in records]
    names = list(dict.fromkeys(name for r in records for name in r["losses"]))
    for name in names:
        style = {"linewidth": 2.2, "color": "black"} if name == "total" else {}
        values = [r["losses"].get(name, float("nan")) for r in records]
        losses.plot(epochs, values, label=name, marker=".", **style)
    losses.set_title("losses, unweighted")
    losses.legend(frameon=False)
    rates.plot(epochs, [r["lr"] for r in records], marker=".")
    rates.set_yscale("log")
    rates.set_title("learning rate at the epoch's end")
    for key, title in (("test", "test set"), ("validation", "validation")):
        judged = [(r["epoch"] + 1, r[key]) for r in records if key in r]
        if judged:
            at = [epoch for epoch, _ in judged]
            scores.plot(at, [100 * j["mAP"] for _, j in judged], "o-", label=f"mAP, {title}")
            scores.plot(at, [100 * j["cmc"][0] for _, j in judged], "s-", label=f"rank-1, {title}")
            scores.legend(frameon=False)
    scores.plot(epochs, [100 * r["accuracy"] for r in records], ":", label="accuracy, training")
    scores.legend(frameon=False)
    scores.set_title("per cent")
    for axes in (losses, rates, scores):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
    with atomic(path) as partial:
        figure.savefig(partial, format="png", dpi=110)


class RunLog:
    """Lines with the time of day, appended to train.log."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, line: str) -> None:
        with self.path.open("a") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {line}\n")


@contextmanager
def warnings_in(path: Path) -> Iterator[None]:
    """Within, reidkit's warnings also go to this file."""
    handler = logging.FileHandler(path, delay=True)
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%Y-%m-%d %H:%M:%S"))
    logger = logging.getLogger("reidkit")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()


def record_of(report: EpochReport) -> dict[str, Any]:
    return dataclasses.asdict(report)


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise RuntimeMissing(
            "--tensorboard needs the tensorboard package: pip install 'reidkit[tensorboard]'"
        ) from error
    return SummaryWriter(str(folder / "tensorboard"))
