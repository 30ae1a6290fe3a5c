"""The largest batch that fits, and the learning-rate range test."""

from pathlib import Path

import pytest
import torch
from test_trainer import settings
from torch import Tensor

from reidkit.data.manifest import open_dataset
from reidkit.errors import ConfigError
from reidkit.training.diagnostics import OutOfMemory
from reidkit.training.search import (
    LargestBatch,
    largest_batch,
    learning_rate_test,
    plot_learning_rates,
    suggest_learning_rate,
)
from reidkit.training.trainer import RunOptions, Trainer
from reidkit.types import Batch, ModelOutput


class LimitedTrainer(Trainer):
    """Has memory for `limit` images."""

    limit = 10**6

    def losses(self, batch: Batch) -> tuple[ModelOutput, dict[str, Tensor]]:
        if len(batch.labels) > self.limit:
            raise MemoryError
        return super().losses(batch)


def build(market: Path, limit: int = 10**6, *, folder: Path = Path("none")) -> LimitedTrainer:
    trainer = LimitedTrainer(
        settings(),
        open_dataset(str(market)),
        folder=folder,
        masks=None,
        device=torch.device("cpu"),
        options=RunOptions(workers=0),
    )
    trainer.limit = limit
    return trainer


@pytest.mark.parametrize(("limit", "expected"), [(4, 4), (13, 12), (23, 20), (44, 44)])
def test_the_largest_batch_that_fits_is_found(market: Path, limit: int, expected: int) -> None:
    found = largest_batch(build(market, limit))
    assert found.size == expected
    assert found.too_large is not None and found.too_large > limit


def test_the_largest_batch_is_at_most_an_epoch(market: Path) -> None:
    trainer = build(market)
    epoch = sum(len(batch) for batch in trainer.batches().epoch(0))
    assert largest_batch(trainer) == LargestBatch(epoch, None)


def test_nothing_fits(market: Path) -> None:
    with pytest.raises(ConfigError, match="not even a batch of 4 fits cpu"):
        largest_batch(build(market, 3))


def test_a_training_that_runs_out_of_memory_says_which_batch_fits(
    market: Path, tmp_path: Path
) -> None:
    expected = "a batch of 16 does not fit the memory of cpu. A batch of 8 fits: --batch 8 --lr"
    with pytest.raises(OutOfMemory, match=expected):
        build(market, 13, folder=tmp_path / "run").fit()


def test_memory_of_larger_batches_is_extrapolated_on_a_cpu(
    market: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peaks = iter([0, 40, 80, 999])  # before, and after batches of 4 and 8: 10 per image
    monkeypatch.setattr("reidkit.training.search.peak_memory", lambda device: next(peaks))
    monkeypatch.setattr("reidkit.training.search._available_memory", lambda: 150)
    assert largest_batch(build(market)).size == 12  # 120 of 150 * 0.9; 16 would take 160


def test_the_learning_rate_rises_until_the_loss_explodes(market: Path, tmp_path: Path) -> None:
    rates, losses = learning_rate_test(build(market), low=1e-6, high=1e3, steps=40)
    assert 3 < len(rates) == len(losses) < 40  # it ended early
    assert rates[0] == pytest.approx(1e-6) and rates == sorted(rates)
    plot_learning_rates(rates, losses, 1e-3, tmp_path / "lr.png")
    assert (tmp_path / "lr.png").read_bytes().startswith(b"\x89PNG")


def test_the_suggestion_is_where_the_loss_falls_most_steeply() -> None:
    rates = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]
    assert suggest_learning_rate(rates, [5.0, 4.9, 4.0, 2.5, 6.0]) == 1e-3
    with pytest.raises(ConfigError, match="does not fall"):
        suggest_learning_rate(rates, [1.0, 2.0, 3.0, 4.0, 5.0])
