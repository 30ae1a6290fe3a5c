"""The largest batch that fits, and the learning-rate range test."""

# B batch

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from reidkit.data.sampler import SampleKey
from reidkit.errors import ConfigError
from reidkit.files import atomic
from reidkit.training.diagnostics import first_rows, is_out_of_memory, peak_memory
from reidkit.training.optim import set_learning_rate
from reidkit.training.trainer import Trainer
from reidkit.types import Batch

HEADROOM = 0.9
"""Share of a CPU's available memory that the largest batch may take."""


@dataclass(frozen=True)
class LargestBatch:
    """The largest batch size that was found to fit.

    Attributes:
        too_large: the next size that was tried and does not fit; None: `size` is all images of an
            epoch.
    """

    size: int
    too_large: int | None


def largest_batch(trainer: Trainer) -> LargestBatch:
    """The largest batch size whose training step fits the device, at most an epoch's images.

    Doubled until a step does not fit, then halved three times in between. On a CPU, where a step
    beyond the memory would stop the machine, the memory of larger batches is extrapolated from
    that of smaller ones. The trainer must not be used afterwards.

    Raises:
        ConfigError: several processes share the batch, or not even the smallest one fits.
    """
    if trainer.group.size > 1:
        raise ConfigError("--batch auto measures one process. Under torchrun pass --batch N")
    sampler = trainer.config.sampler
    unit = 2 if sampler.kind == "shuffle" else sampler.samples_per_id
    keys = [key for batch in trainer.batches().epoch(0) for key in batch]
    rows = trainer.images.finish(trainer.images.batch(keys[:unit]), torch.device("cpu"))
    fits = _probe(trainer, rows)
    best, limit = 0, len(keys) // unit
    units = 1
    while best < limit and fits(units * unit):
        best, units = units, min(2 * units, limit)
    if best == limit:
        return LargestBatch(best * unit, None)
    for _ in range(3):
        between = (best + units) // 2
        if between == best:
            break
        if fits(between * unit):
            best = between
        else:
            units = between
    if not best:
        raise ConfigError(f"not even a batch of {unit} fits {trainer.device}. Use a smaller --size")
    return LargestBatch(best * unit, units * unit)


def _probe(trainer: Trainer, rows: Batch) -> Callable[[int], bool]:
    """fits(B): whether a training step on B images fits the device's memory."""
    peaks: dict[int, int] = {}
    free = _available_memory() if trainer.device.type == "cpu" else 0
    start = peak_memory(trainer.device)

    def fits(B: int) -> bool:
        if len(peaks) > 1 and free:
            (small, least), (large, most) = sorted(peaks.items())[-2:]
            expected = most + (most - least) * (B - large) / (large - small)
            if expected - start > HEADROOM * free:
                return False
        try:
            batch = first_rows(_repeat(rows, B), B, trainer.device)
            trainer.state.update(trainer.losses(batch)[1]["total"])
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return False
        finally:
            trainer.state.optimizer.zero_grad(set_to_none=True)
            if trainer.device.type == "cuda":
                torch.cuda.empty_cache()
        peaks[B] = peak_memory(trainer.device)
        return True

    return fits


def _repeat(batch: Batch, B: int) -> Batch:
    index = torch.arange(B) % len(batch.labels)
    masks = None if batch.masks is None else batch.masks[index]
    sizes = None if batch.mask_sizes is None else batch.mask_sizes[index]
    return Batch(batch.images[index], batch.labels[index], batch.camids[index], masks, sizes)


def _available_memory() -> int:
    """Bytes that the system could give; 0 where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0
    fields = {line.partition(":")[0]: line.split()[1] for line in lines}
    return int(fields.get("MemAvailable", 0)) * 1024


def learning_rate_test(
    trainer: Trainer,
    *,
    low: float = 1e-7,
    high: float = 1.0,
    steps: int = 100,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[float], list[float]]:
    """Learning-rate range test (Smith, "Cyclical learning rates for training neural networks",
    WACV 2017): the learning rate rises exponentially from `low` to `high`, one step each.

    Ends early when the loss is four times its smallest value. The trainer must not be used
    afterwards.

    Returns:
        learning rates and total losses of the steps; the losses are smoothed by an exponential
        moving average with decay 0.9, corrected for its start.
    """
    rates: list[float] = []
    losses: list[float] = []
    average = 0.0
    trainer.load_weights()
    trainer.network.train()
    with trainer.load_batches() as batches:
        for step, batch in zip(range(steps), _repeated(trainer, batches), strict=False):
            rate = low * (high / low) ** (step / max(steps - 1, 1))
            set_learning_rate(trainer.state.optimizer, rate)
            loss = trainer.losses(batch)[1]["total"]
            value = loss.item()
            average = 0.9 * average + 0.1 * value
            smooth = average / (1 - 0.9 ** (step + 1))
            if not math.isfinite(value) or (losses and smooth > 4 * min(losses)):
                break
            rates.append(rate)
            losses.append(smooth)
            trainer.state.update(loss)
            on_progress(step + 1, steps)
    return rates, losses


def _repeated(trainer: Trainer, batches: Iterator[Batch]) -> Iterator[Batch]:
    """The batches, and those of the first epoch again if the run is shorter than the test."""
    yield from batches
    while True:
        for keys in trainer.batches().epoch(0):
            local: list[SampleKey] = list(trainer.group.shard(keys))
            yield trainer.images.finish(trainer.images.batch(local), trainer.device)


def suggest_learning_rate(rates: list[float], losses: list[float]) -> float:
    """The rate at which the loss falls most steeply over the logarithm of the rate.

    Raises:
        ConfigError: the loss does not fall.
    """
    slopes = [
        (after - before) / math.log(high / low)
        for low, high, before, after in zip(rates, rates[2:], losses, losses[2:], strict=False)
    ]
    if not slopes or min(slopes) >= 0:
        raise ConfigError("the loss does not fall at any learning rate of the test")
    return rates[1 + slopes.index(min(slopes))]


def plot_learning_rates(
    rates: list[float], losses: list[float], suggestion: float, path: Path
) -> None:
    """Writes a PNG: loss over learning rate, with the suggestion marked."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(rates, losses)
    axes.axvline(suggestion, color="black", linestyle=":", label=f"steepest: {suggestion:.2g}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="total loss (smoothed)")
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    with atomic(path) as partial:
        figure.savefig(partial, format="png", dpi=110)
