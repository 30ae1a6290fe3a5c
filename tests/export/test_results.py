"""Results of an exported file are compared with the checkpoint's before it is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from reidkit.errors import ReidkitError
from reidkit.export.results import ResultComparison, check_results
from reidkit.export.settings import ExportSettings


def comparison(mAP: float, rank_1: float) -> ResultComparison:
    return ResultComparison(
        dataset="market1501",
        fingerprint="",
        expected={"mAP": 0.8, "rank-1": 0.9},
        found={"mAP": mAP, "rank-1": rank_1},
        changed=tuple(f"query/{k}.jpg" for k in range(7)),
        queries=100,
    )


@pytest.mark.parametrize(
    ("mAP", "rank_1", "passes"),
    [(0.8005, 0.9, True), (0.7985, 0.9, False), (0.8015, 0.9, False), (0.8, 0.898, False)],
)
def test_float32_may_move_mAP_and_rank_1_by_a_tenth_of_a_point(
    mAP: float, rank_1: float, passes: bool
) -> None:
    assert comparison(mAP, rank_1).passes("fp32", None) is passes


def test_int8_may_lose_half_a_point_of_mAP_and_may_gain() -> None:
    assert comparison(0.7955, 0.88).passes("int8", None)
    assert comparison(0.82, 0.9).passes("int8", None)
    assert not comparison(0.794, 0.9).passes("int8", None)


def test_a_refusal_names_the_queries_that_changed() -> None:
    with pytest.raises(ReidkitError) as refused:
        check_results(comparison(0.7, 0.9), ExportSettings(precision="fp16"), target=Path("m.onnx"))
    message = str(refused.value)
    assert "mAP 80.00 -> 70.00, rank-1 90.00 -> 90.00; 7 of 100 queries changed" in message
    assert "query/0.jpg" in message and "and 2 more. m.onnx was not written" in message
    check_results(comparison(0.7, 0.9), ExportSettings(tolerance=11), target=Path("m.onnx"))
