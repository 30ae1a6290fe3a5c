"""The two ways to a float32 product."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reidkit.retrieval import Embeddings, RerankConfig, evaluate, products
from reidkit.retrieval.products import convolve, fastest_product, multiply, pick_product

CPU = torch.device("cpu")


@pytest.mark.parametrize("B,C,D", [(1, 1, 3), (7, 300, 64), (33, 10, 2048), (5, 9000, 16)])
def test_the_convolution_is_the_product_in_full_float32(B, C, D):
    torch.manual_seed(B)
    rows = torch.nn.functional.normalize(torch.randn(B, D))
    columns = torch.nn.functional.normalize(torch.randn(C, D))
    exact = rows.double() @ columns.double().T
    wide = torch.full((B, C + 4), 9.0)
    for product in (multiply, convolve):
        product(rows, columns, wide[:, 2:-2])  # into the middle of a larger block
        assert (wide[:, 2:-2] - exact).abs().max() < 1e-6
        assert (wide[:, :2] == 9).all() and (wide[:, -2:] == 9).all()


def errors():
    """Largest error of both products on unit vectors."""
    torch.manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(256, 2048))
    exact = rows.double() @ rows.double().T
    found = []
    for product in (multiply, convolve):
        out = torch.empty(256, 256)
        product(rows, rows, out)
        found.append((out - exact).abs().max().item())
    return found


def test_a_training_loop_that_allows_less_precision_changes_no_product():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert max(errors()) < 1e-5  # bf16 errs by 2.5e-4
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.skipif(
    not hasattr(torch.backends.mkldnn, "matmul"), reason="this torch has one switch for all"
)
def test_nor_does_less_precision_for_one_backend():
    switches = (torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv)
    before = [switch.fp32_precision for switch in switches]
    try:
        for switch in switches:
            switch.fp32_precision = "bf16"
        assert max(errors()) < 1e-5  # bf16 errs by 2.5e-4
        assert [switch.fp32_precision for switch in switches] == ["bf16", "bf16"]
    finally:
        for switch, precision in zip(switches, before, strict=True):
            switch.fp32_precision = precision


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("rerank", [None, RerankConfig(6, 3)])
def test_both_give_the_same_scores(metric, rerank, monkeypatch):
    rng = np.random.default_rng(0)
    pids = np.arange(200) % 20
    features = rng.normal(size=(20, 32))[pids] + rng.normal(size=(200, 32))
    both = Embeddings(features, pids, rng.integers(0, 4, 200))
    query, gallery = both.take(np.arange(40)), both.take(np.arange(40, 200))
    first = evaluate(query, gallery, metric=metric, rerank=rerank)
    monkeypatch.setattr("reidkit.retrieval.rows.pick_product", lambda *job: convolve)
    second = evaluate(query, gallery, metric=metric, rerank=rerank)
    assert first.mAP == pytest.approx(second.mAP, abs=1e-6)


@pytest.mark.parametrize("slower,expected", [(1.4, multiply), (1.6, convolve)])
def test_the_convolution_is_taken_only_where_it_wins_clearly(slower, expected, monkeypatch):
    now = [0.0]

    def spend(seconds):
        def product(rows, columns, out):
            now[0] += seconds

        return product

    slow, fast = spend(slower), spend(1.0)
    monkeypatch.setattr(products, "multiply", slow)
    monkeypatch.setattr(products, "convolve", fast)
    monkeypatch.setattr(products.time, "perf_counter", lambda: now[0])
    fastest_product.cache_clear()
    try:
        assert fastest_product(8, 1) is (slow if expected is multiply else fast)
    finally:
        fastest_product.cache_clear()


def test_small_jobs_are_not_timed_at_all(monkeypatch):
    monkeypatch.setattr(products, "fastest_product", lambda D, threads: convolve)
    assert pick_product(10**9, 64, CPU) is multiply
    assert pick_product(10**12, 64, CPU) is convolve
    assert pick_product(10**12, 64, torch.device("cuda")) is multiply
