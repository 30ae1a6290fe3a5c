"""GPU results equal CPU results. The device branches are tested on CPU tensors as well."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reidkit.retrieval import Embeddings, RankingConfig, RerankConfig, compute_metrics, top_n
from reidkit.retrieval.search import _nearest_on_device, nearest


def make(rng, n, dim=24):
    pids = rng.integers(0, 12, n)
    features = np.random.default_rng(1).normal(size=(12, dim))[pids] + rng.normal(size=(n, dim))
    return Embeddings(features, pids, rng.integers(0, 3, n), rng.choice(3, n, p=[0.8, 0.1, 0.1]))


def test_nearest_items_on_other_devices_break_ties_by_index_too():
    block = torch.from_numpy(np.round(np.random.default_rng(0).random((40, 90)), 1))
    block[3, :80] = torch.inf
    for n in (1, 7, 90):
        expected, found = nearest(block, n), _nearest_on_device(block, n)
        assert expected[0].tolist() == found[0].tolist()
        assert expected[1].tolist() == found[1].tolist()
        order = np.argsort(block.numpy(), axis=1, kind="stable")[:, :n]
        assert expected[0].tolist() == order.tolist()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("rerank", [None, RerankConfig(8, 3)])
@pytest.mark.parametrize("protocol", ["market", "mars", "none", "cuhk03-classic-sampled"])
def test_a_gpu_gives_the_same_scores_to_1e_6(metric, rerank, protocol):
    rng = np.random.default_rng(0)
    query, gallery = make(rng, 50), make(rng, 400)
    query = Embeddings(query.features, query.pids, query.camids)
    configs = [RankingConfig(protocol, metric, rerank, device=d) for d in ("cpu", "cuda")]
    cpu, gpu = (
        compute_metrics(query, gallery, config, thresholds=True, by_camera=True)
        for config in configs
    )
    assert cpu.mAP == pytest.approx(gpu.mAP, abs=1e-6)
    assert cpu.mINP == pytest.approx(gpu.mINP, abs=1e-6)
    assert cpu.cmc == pytest.approx(gpu.cmc, abs=1e-6)
    assert cpu.pairs.same.sum() == gpu.pairs.same.sum()
    assert [p.mAP for p in cpu.cameras] == pytest.approx([p.mAP for p in gpu.cameras], abs=1e-6)
    lists = [top_n(query, gallery, 10, config) for config in configs]
    assert lists[0].distances == pytest.approx(lists[1].distances, abs=1e-5)
