"""What goes wrong in a step is said with what to do about it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from reidkit.training.ema import MovingAverage
from reidkit.training.trouble import first_nonfinite_layer, fitting_batch, out_of_memory_message
from reidkit.types import ModelOutput


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(2, 2) for _ in range(3))

    def forward(self, x: Tensor) -> ModelOutput:
        return ModelOutput(features=self.third(self.second(self.first(x))), logits=())


def test_the_first_layer_whose_output_is_not_finite_is_named() -> None:
    toy = Toy()
    assert "began in the loss" in first_nonfinite_layer(lambda: toy(torch.ones(1, 2)), toy)
    with torch.no_grad():
        toy.second.weight[0, 0] = torch.inf
    told = first_nonfinite_layer(lambda: toy(torch.ones(1, 2)), toy)
    assert told == "it began in second (Linear), whose weights are not finite any more"
    large = Toy()
    told = first_nonfinite_layer(lambda: large(torch.full((1, 2), torch.nan)), large)
    assert told == "it began in first (Linear)"


@pytest.mark.parametrize(
    ("limit", "expected"), [(64, 32), (32, 32), (31, 16), (9, 8), (4, 4), (3, None)]
)
def test_the_batch_that_fits_is_found_by_trying(limit: int, expected: int | None) -> None:
    tried: list[int] = []

    def attempt(size: int) -> None:
        tried.append(size)
        if size > limit:
            raise torch.OutOfMemoryError

    assert fitting_batch(attempt, 64, multiple=4) == expected
    assert all(size % 4 == 0 for size in tried)


def test_other_errors_are_not_taken_for_lack_of_memory() -> None:
    def attempt(size: int) -> None:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        fitting_batch(attempt, 64, multiple=4)


def test_the_message_names_batch_and_learning_rate() -> None:
    message = out_of_memory_message(64, 16, 3.5e-4, torch.device("cpu"))
    assert "--batch 16 --lr 8.75e-05" in message


def test_the_moving_average_is_the_formula_and_is_put_on_for_a_while() -> None:
    model = nn.Linear(3, 1, bias=False)
    start = model.weight.detach().clone()
    average = MovingAverage(model, decay=0.9)
    expected = start
    for step in range(3):
        with torch.no_grad():
            model.weight.add_(step + 1.0)
        average.update(model)
        expected = 0.9 * expected + 0.1 * model.weight.detach()
    now = model.weight.detach().clone()
    with average.applied(model):
        torch.testing.assert_close(model.weight.detach(), expected)
    assert torch.equal(model.weight.detach(), now)
