"""Memory budgets and forecasts."""

from __future__ import annotations

import time

import numpy as np
import pytest

from reidkit.errors import ConfigError
from reidkit.retrieval import Embeddings, RerankConfig, evaluate, forecast, make_plan

MIB = 2**20
MSMT17 = (11_659, 82_161, 2048)


@pytest.mark.parametrize("rerank", [None, RerankConfig()])
@pytest.mark.parametrize("budget", [380, 500, 3000])
def test_a_plan_keeps_within_its_budget(rerank, budget):
    plan = make_plan(*MSMT17, rerank=rerank, max_memory=budget * MIB)
    assert plan.memory <= budget * MIB
    assert plan.rows >= 1
    assert (plan.tile >= 64) == (rerank is not None)


@pytest.mark.parametrize("rerank", [None, RerankConfig(), RerankConfig(k1=5, k2=2)])
def test_the_least_budget_a_refusal_names_is_enough(rerank):
    with pytest.raises(ConfigError, match="is too small") as refusal:
        make_plan(*MSMT17, rerank=rerank, max_memory=MIB)
    named = int(str(refusal.value).split("at least ")[1].split()[0])
    make_plan(*MSMT17, rerank=rerank, max_memory=named * MIB)
    with pytest.raises(ConfigError):
        make_plan(*MSMT17, rerank=rerank, max_memory=(named - 2) * MIB)


def test_tiles_shrink_to_fit_a_small_budget():
    config = RerankConfig(k1=5, k2=2)
    tiles = []
    for budget in (19, 100):
        plan = make_plan(500, 2500, 2048, rerank=config, max_memory=budget * MIB)
        assert plan.memory <= budget * MIB
        tiles.append(plan.tile)
    assert tiles == [1024, 2048]


def test_reranking_refuses_a_small_budget_before_any_work():
    rng = np.random.default_rng(0)
    query = Embeddings(rng.normal(size=(50, 8)), np.arange(50), np.arange(50))
    with pytest.raises(ConfigError, match="too small for re-ranking 100 vectors"):
        evaluate(
            query,
            query,
            rerank=RerankConfig(),
            max_memory=MIB,
            on_progress=lambda *call: pytest.fail(f"work began: {call}"),
        )


def test_the_forecast_grows_with_the_work():
    small, large = forecast(100, 1000, 64), forecast(1000, 100_000, 64)
    assert large.products == 1000 * small.products
    assert large.seconds > 10 * small.seconds
    again = forecast(1000, 100_000, 64, rerank=RerankConfig())
    assert again.seconds > large.seconds and again.memory > large.memory


def test_the_forecast_is_quick(monkeypatch):
    calls = []
    clock = time.perf_counter
    monkeypatch.setattr(time, "perf_counter", lambda: calls.append(1) or clock())
    forecast(*MSMT17, rerank=RerankConfig())
    assert len(calls) <= 26  # sixteen small products at most, whatever is forecast
