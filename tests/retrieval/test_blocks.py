"""Block sizes within a memory budget."""

from __future__ import annotations

import numpy as np
import pytest

from reidkit.errors import ConfigError
from reidkit.retrieval import Embeddings, RankingConfig, RerankConfig, compute_metrics
from reidkit.retrieval.blocks import plan_blocks

MIB = 2**20
MSMT17 = (11_659, 82_161, 2048)


@pytest.mark.parametrize("rerank", [None, RerankConfig()])
@pytest.mark.parametrize("budget", [380, 500, 3000])
def test_a_plan_keeps_within_its_budget(rerank, budget):
    plan = plan_blocks(*MSMT17, rerank=rerank, max_memory=budget * MIB)
    assert plan.memory <= budget * MIB
    assert plan.rows >= 1
    assert (plan.tile >= 64) == (rerank is not None)


@pytest.mark.parametrize("rerank", [None, RerankConfig(), RerankConfig(k1=5, k2=2)])
def test_the_budget_that_the_error_message_suggests_is_sufficient(rerank):
    with pytest.raises(ConfigError, match="is too small") as refusal:
        plan_blocks(*MSMT17, rerank=rerank, max_memory=MIB)
    suggested = int(str(refusal.value).split("at least ")[1].split()[0])
    plan_blocks(*MSMT17, rerank=rerank, max_memory=suggested * MIB)
    with pytest.raises(ConfigError):
        plan_blocks(*MSMT17, rerank=rerank, max_memory=(suggested - 2) * MIB)


def test_tiles_shrink_to_fit_a_small_budget():
    config = RerankConfig(k1=5, k2=2)
    tiles = []
    for budget in (19, 100):
        plan = plan_blocks(500, 2500, 2048, rerank=config, max_memory=budget * MIB)
        assert plan.memory <= budget * MIB
        tiles.append(plan.tile)
    assert tiles == [1024, 2048]


def test_reranking_refuses_a_small_budget_before_any_work():
    rng = np.random.default_rng(0)
    query = Embeddings(rng.normal(size=(50, 8)), np.arange(50), np.arange(50))
    with pytest.raises(ConfigError, match="too small for re-ranking 100 vectors"):
        compute_metrics(
            query,
            query,
            RankingConfig(rerank=RerankConfig(), max_memory=MIB),
            on_progress=lambda *call: pytest.fail(f"work started: {call}"),
        )
