"""Sparse, blocked re-ranking against the dense procedure of the paper."""

from __future__ import annotations

import numpy as np
import pytest
import slow_retrieval as slow

from reidkit.errors import ConfigError, DataError
from reidkit.retrieval import (
    Embeddings,
    GalleryLabels,
    RankingConfig,
    RerankConfig,
    compute_metrics,
    metrics_from_distances,
    top_n,
)
from reidkit.retrieval.distance import Vectors
from reidkit.retrieval.neighbours import _seed, find_neighbours
from reidkit.retrieval.rerank import rerank_distances


def people(rng, n, *, ids=12, dim=10, spread=0.6):
    pids = rng.integers(0, ids, n)
    centres = np.random.default_rng(7).normal(size=(ids, dim))
    return Embeddings(
        (centres[pids] + spread * rng.normal(size=(n, dim))).astype(np.float32),
        pids,
        rng.integers(0, 4, n),
    )


def whole(rows):
    return rows.block(0, rows.shape[0]).numpy()


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize(
    "k1,k2,lam", [(20, 6, 0.3), (5, 1, 0.5), (15, 3, 0.0), (7, 12, 1.0), (7, 12, 0.3), (1, 2, 0.3)]
)
def test_equals_the_dense_procedure(metric, k1, k2, lam):
    rng = np.random.default_rng(k1)
    query, gallery = people(rng, 30), people(rng, 140)
    rows = rerank_distances(query, [gallery], config=RerankConfig(k1, k2, lam), metric=metric)
    both = np.concatenate([query.features, gallery.features])
    expected = slow.rerank_dense(both, 30, k1, k2, lam, metric)
    assert np.abs(whole(rows) - expected).max() < 1e-6


def test_equals_the_dense_procedure_with_duplicates_and_ties():
    rng = np.random.default_rng(4)
    # integers: squared distances are exact; vectors occur three times on average
    base = rng.integers(-2, 3, size=(60, 6)).astype(np.float32)
    base[:, 0] += 5
    features = base[rng.integers(0, 60, 180)]
    query = Embeddings(features[:40], np.zeros(40, int), np.zeros(40, int))
    gallery = Embeddings(features[40:], np.zeros(140, int), np.zeros(140, int))
    rows = rerank_distances(query, [gallery], config=RerankConfig(9, 4), metric="euclidean")
    expected = slow.rerank_dense(features, 40, 9, 4, metric="euclidean")
    assert np.abs(whole(rows) - expected).max() < 1e-6


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("tile", [7, 64, 2048])
def test_equal_vectors_are_ordered_by_index_despite_rounding(metric, tile):
    rng = np.random.default_rng(8)
    # each vector three times; not integers, so that products of equal vectors are not exact
    features = rng.normal(size=(60, 33)).astype(np.float32)[rng.permutation(180) % 60]
    query = Embeddings(features[:40], np.zeros(40, int), np.zeros(40, int))
    gallery = Embeddings(features[40:], np.zeros(140, int), np.zeros(140, int))
    # lists that end among copies of the vector itself: distances to copies of another vector may
    # differ in the last bit from tile to tile
    for config in (RerankConfig(1, 2), RerankConfig(5, 2)):
        rows = rerank_distances(query, [gallery], config=config, metric=metric, tile=tile)
        expected = slow.rerank_dense(features, 40, config.k1, config.k2, metric=metric)
        assert np.abs(whole(rows) - expected).max() < 1e-6


def test_rounding_on_either_side_of_zero_does_not_reorder_equal_vectors():
    # vectors 0, 1 and 2 are equal: lists of two must contain 0 and 1
    tile = np.array(
        [[0, 3e-7, -2e-7, 0.5], [3e-7, 0, -2e-7, 0.5], [3e-7, -2e-7, 0, 0.5], [0.5, 0.5, 0.5, 0]],
        dtype=np.float32,
    )
    keys, farthest = np.full((4, 2), np.iinfo(np.int64).max), np.zeros(4, np.float32)
    _seed(keys, farthest, tile, 0, np.float32(1e-6))
    assert (keys & 0xFFFFFFFF).tolist() == [[0, 1], [0, 1], [0, 1], [3, 0]]
    assert farthest.tolist() == [0.5] * 4


def test_ties_across_tiles_go_to_the_lower_index():
    rng = np.random.default_rng(9)
    features = rng.integers(0, 3, size=(90, 4)).astype(np.float32) + 1
    everything = Embeddings(features, np.zeros(90, int), np.zeros(90, int))
    squared = ((features[:, None] - features[None]) ** 2).sum(2)
    expected = np.argsort(squared, axis=1, kind="stable")
    for tile in (11, 40, 90):
        neighbours = find_neighbours(Vectors([everything], metric="euclidean"), K=8, tile=tile)
        assert neighbours.index.tolist() == expected[:, :8].tolist()
        assert neighbours.distance == pytest.approx(np.sort(squared, axis=1)[:, :8], abs=1e-4)
        assert neighbours.farthest == pytest.approx(squared.max(axis=1), abs=1e-4)


def test_results_do_not_depend_on_tiles_and_blocks(monkeypatch):
    rng = np.random.default_rng(2)
    query, gallery = people(rng, 40), people(rng, 150)
    config = RerankConfig(10, 4)
    expected = whole(rerank_distances(query, [gallery], config=config))
    monkeypatch.setattr("reidkit.retrieval.rerank._ENCODED", 13)
    rows = rerank_distances(query, [gallery], config=config, tile=17)
    parts = [rows.block(start, min(start + 11, 40)).numpy().copy() for start in range(0, 40, 11)]
    assert np.abs(np.concatenate(parts) - expected).max() < 1e-6


def test_junk_does_not_affect_reranking():
    rng = np.random.default_rng(3)
    query, gallery = people(rng, 20), people(rng, 120)
    junk = rng.random(120) < 0.3
    marked = Embeddings(gallery.features, gallery.pids, gallery.camids, junk.astype(np.uint8))
    kept = gallery.take(~junk)
    config = RerankConfig(8, 3)
    with_junk = whole(rerank_distances(query, [marked], config=config))
    without = whole(rerank_distances(query, [kept], config=config))
    assert np.abs(with_junk[:, ~junk] - without).max() < 1e-6
    a, b = (
        compute_metrics(query, marked, RankingConfig(rerank=config)),
        compute_metrics(query, kept, RankingConfig(rerank=config)),
    )
    assert a.mAP == pytest.approx(b.mAP, abs=1e-9)
    lists = top_n(query, marked, 10, RankingConfig(rerank=config))
    assert not junk[lists.indices].any()


def test_metrics_equal_those_of_the_dense_distances():
    rng = np.random.default_rng(5)
    query, gallery = people(rng, 40, spread=1.2), people(rng, 160, spread=1.2)
    both = np.concatenate([query.features, gallery.features])
    labels = GalleryLabels(gallery.pids, gallery.camids, gallery.roles)
    expected = metrics_from_distances(
        slow.rerank_dense(both, 40).astype(np.float32), query.pids, query.camids, labels
    )
    metrics = compute_metrics(query, gallery, RankingConfig(rerank=RerankConfig()))
    assert metrics.mAP == pytest.approx(expected.mAP, abs=1e-4)
    assert metrics.cmc == pytest.approx(expected.cmc, abs=0.026)
    assert metrics.to_dict()["rerank"] == {"k1": 20, "k2": 6, "lambda": 0.3}


def test_reranking_improves_map_if_identities_form_clusters():
    rng = np.random.default_rng(6)
    query, gallery = people(rng, 60, spread=1.1), people(rng, 400, spread=1.1)
    assert (
        compute_metrics(query, gallery, RankingConfig(rerank=RerankConfig())).mAP
        > compute_metrics(query, gallery).mAP
    )


def test_under_mars_a_query_counts_once():
    rng = np.random.default_rng(9)
    query, gallery = people(rng, 25), people(rng, 100)
    config = RerankConfig(8, 3)
    rows = rerank_distances(query, [query, gallery], config=config)
    plain = rerank_distances(query, [gallery], config=config)
    assert rows.shape == (25, 125)
    assert np.abs(whole(rows)[:, 25:] - whole(plain)).max() < 1e-6
    assert np.diag(whole(rows)[:, :25]) == pytest.approx(np.zeros(25), abs=1e-6)


def test_a_gallery_in_several_parts_is_ranked_like_one():
    rng = np.random.default_rng(11)
    query, gallery = people(rng, 20), people(rng, 90)
    cuts = [gallery.take(np.arange(90) // 30 == part) for part in range(3)]
    config = RerankConfig(8, 3)
    together = whole(rerank_distances(query, [gallery], config=config))
    assert np.abs(whole(rerank_distances(query, cuts, config=config)) - together).max() < 1e-6


def test_progress_counts_vectors_in_both_stages(monkeypatch):
    monkeypatch.setattr("reidkit.retrieval.rerank._ENCODED", 50)
    rng = np.random.default_rng(12)
    calls = []
    rerank_distances(
        people(rng, 20),
        [people(rng, 100)],
        config=RerankConfig(8, 3),
        on_progress=lambda *call: calls.append(call),
    )
    stages = list(dict.fromkeys(stage for stage, _, _ in calls))
    assert len(stages) == 2 and stages[1] == "encoding"
    assert [call for call in calls if call[0] == "encoding"] == [
        ("encoding", done, 120) for done in (50, 100, 120)
    ]
    done, total = [call[1:] for call in calls if call[0] == stages[0]][-1]
    assert done == total


def test_a_gallery_smaller_than_k1_is_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(DataError, match="k1 = 20 needs at least 20 gallery items, found 19"):
        compute_metrics(people(rng, 5), people(rng, 19), RankingConfig(rerank=RerankConfig()))
    compute_metrics(people(rng, 5), people(rng, 20), RankingConfig(rerank=RerankConfig()))


@pytest.mark.parametrize("wrong", [{"k1": 0}, {"k2": 0}, {"lam": 1.5}])
def test_invalid_parameters_are_refused(wrong):
    with pytest.raises(ConfigError, match="re-ranking needs"):
        RerankConfig(**wrong)
