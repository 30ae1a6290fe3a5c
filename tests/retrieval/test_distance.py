"""Matrix products in full float32."""

from __future__ import annotations

import pytest
import torch

from reidkit.retrieval.distance import multiply


@pytest.mark.parametrize("B,C,D", [(1, 1, 3), (7, 300, 64), (33, 10, 2048), (5, 9000, 16)])
def test_a_product_is_written_into_the_middle_of_a_larger_block(B, C, D):
    torch.manual_seed(B)
    rows = torch.nn.functional.normalize(torch.randn(B, D))
    columns = torch.nn.functional.normalize(torch.randn(C, D))
    exact = rows.double() @ columns.double().T
    wide = torch.full((B, C + 4), 9.0)
    multiply(rows, columns, wide[:, 2:-2])
    assert (wide[:, 2:-2] - exact).abs().max() < 1e-6
    assert (wide[:, :2] == 9).all() and (wide[:, -2:] == 9).all()


def largest_error():
    """Of products of unit vectors, against float64."""
    torch.manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(256, 2048))
    out = torch.empty(256, 256)
    multiply(rows, rows, out)
    return (out - rows.double() @ rows.double().T).abs().max().item()


def test_reduced_matmul_precision_during_training_does_not_affect_products():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert largest_error() < 1e-5  # in bfloat16 it is 2.5e-4
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.skipif(
    not hasattr(torch.backends.mkldnn, "matmul"), reason="this torch has one precision for all"
)
def test_reduced_precision_of_a_single_backend_does_not_affect_products():
    backend = torch.backends.mkldnn.matmul
    before = backend.fp32_precision
    try:
        backend.fp32_precision = "bf16"
        assert largest_error() < 1e-5  # in bfloat16 it is 2.5e-4
        assert backend.fp32_precision == "bf16"
    finally:
        backend.fp32_precision = before
