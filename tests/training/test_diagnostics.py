"""A failed training step is explained with what to change."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from reidkit.training.diagnostics import (
    first_nonfinite_layer,
    fitting_batch,
    out_of_memory_message,
)
from reidkit.types import ModelOutput


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(2, 2) for _ in range(3))

    def forward(self, x: Tensor) -> ModelOutput:
        return ModelOutput(features=self.third(self.second(self.first(x))), logits=())


def test_the_first_layer_whose_output_is_not_finite_is_named() -> None:
    toy = Toy()
    assert "the loss itself" in first_nonfinite_layer(lambda: toy(torch.ones(1, 2)), toy)
    with torch.no_grad():
        toy.second.weight[0, 0] = torch.inf
    message = first_nonfinite_layer(lambda: toy(torch.ones(1, 2)), toy)
    assert message == (
        "the first non-finite output is that of second (Linear), whose weights are not finite"
    )
    large = Toy()
    message = first_nonfinite_layer(lambda: large(torch.full((1, 2), torch.nan)), large)
    assert message == "the first non-finite output is that of first (Linear)"


@pytest.mark.parametrize(
    ("limit", "expected"), [(64, 32), (32, 32), (31, 16), (9, 8), (4, 4), (3, None)]
)
def test_the_largest_batch_that_fits_is_found_by_halving(limit: int, expected: int | None) -> None:
    tried: list[int] = []

    def attempt(size: int) -> None:
        tried.append(size)
        if size > limit:
            raise torch.OutOfMemoryError

    assert fitting_batch(attempt, 64, multiple=4) == expected
    assert all(size % 4 == 0 for size in tried)


def test_other_errors_are_not_mistaken_for_a_lack_of_memory() -> None:
    def attempt(size: int) -> None:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        fitting_batch(attempt, 64, multiple=4)


def test_the_message_suggests_batch_size_and_learning_rate() -> None:
    message = out_of_memory_message(64, 16, 3.5e-4, torch.device("cpu"))
    assert "--batch 16 --lr 8.75e-05" in message
