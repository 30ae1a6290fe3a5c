"""Verification, open-set identification and thresholds; scores by camera pair."""

from __future__ import annotations

import json

import numpy as np
import pytest

from reidkit.errors import ConfigError, DataError
from reidkit.retrieval import (
    Embeddings,
    GalleryLabels,
    RankingConfig,
    RerankConfig,
    compute_metrics,
    metrics_from_distances,
)

ROLES = np.array(["person", "junk", "distractor"])


def setting(seed, Q=30, G=200):
    rng = np.random.default_rng(seed)
    pids, gallery_pids = rng.integers(0, 12, Q), rng.integers(0, 10, G)
    labels = GalleryLabels(
        gallery_pids, rng.integers(0, 3, G), rng.choice(3, G, p=[0.8, 0.1, 0.1]).astype(np.uint8)
    )
    distances = rng.random((Q, G)) + 0.5 * (pids[:, None] != gallery_pids)
    return distances, pids, rng.integers(0, 3, Q), labels


def ranked_pairs(distances, pids, camids, labels):
    """Distances of each query to the same and to other identities, by loops."""
    same, other = [[] for _ in pids], [[] for _ in pids]
    for q in range(len(pids)):
        for g in range(len(labels.pids)):
            equal = labels.pids[g] == pids[q] and labels.roles[g] == 0
            if labels.roles[g] == 1 or (equal and labels.camids[g] == camids[q]):
                continue
            (same if equal else other)[q].append(distances[q, g])
    return same, other


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("fpr", [1e-3, 1e-2, 0.1, 0.5])
def test_the_rates_of_a_threshold_equal_those_of_loops(seed, fpr):
    data = setting(seed)
    metrics = metrics_from_distances(*data, thresholds=True)
    point = metrics.pairs.operating_point(fpr)
    same, other = (np.concatenate(part) for part in ranked_pairs(*data))
    assert point.fpr == pytest.approx(np.mean(other < point.threshold), abs=1e-9)
    assert point.tpr == pytest.approx(np.mean(same < point.threshold), abs=1e-9)
    assert point.fpr <= fpr
    # a threshold one bin higher exceeds the rate
    assert np.mean(other < point.threshold + 2 * metrics.pairs.limit / 2**18) > fpr


@pytest.mark.parametrize("seed", range(3))
def test_open_set_rates_equal_the_loops(seed):
    data = setting(seed)
    metrics = metrics_from_distances(*data, thresholds=True)
    same, other = ranked_pairs(*data)
    for far in (0.05, 0.2):
        point = metrics.pairs.identification_point(far)
        known = [q for q in range(len(same)) if same[q]]
        hits = [q for q in known if min(same[q]) < min(other[q]) and min(same[q]) < point.threshold]
        assert point.dir == pytest.approx(len(hits) / len(known))
        assert point.far == pytest.approx(np.mean([min(o) < point.threshold for o in other]))
        assert point.far <= far


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("rerank", [None, RerankConfig(5, 2)])
def test_every_pair_is_counted_once_for_every_kind_of_distance(metric, rerank):
    rng = np.random.default_rng(0)

    def make(n, roles=None):
        features = rng.normal(size=(n, 6)).astype(np.float32)
        features[0] = [1, 0, 0, 0, 0, 0]
        features[1] = [-1, 0, 0, 0, 0, 0]  # opposite vectors: the largest cosine distance
        return Embeddings(features, rng.integers(0, 5, n), rng.integers(0, 2, n), roles)

    query, gallery = make(20), make(60, rng.choice(3, 60))
    metrics = compute_metrics(
        query, gallery, RankingConfig(metric=metric, rerank=rerank), thresholds=True
    )
    same, other = ranked_pairs(
        np.ones((20, 60)),
        query.pids,
        query.camids,
        GalleryLabels(gallery.pids, gallery.camids, gallery.roles),
    )
    assert metrics.pairs.same.sum() == sum(map(len, same)) == metrics.match_counts.sum()
    assert metrics.pairs.other.sum() == sum(map(len, other))


def test_a_threshold_is_a_cosine_or_euclidean_distance():
    query = Embeddings([[3.0, 0], [0, 3.0]], [1, 2], [0, 0])
    gallery = Embeddings([[3.0, 0.1], [0.1, 3.0]], [1, 2], [1, 1])
    euclidean = compute_metrics(query, gallery, RankingConfig(metric="euclidean"), thresholds=True)
    # two matches at distance 0.1, two other items at about 4.17
    assert euclidean.pairs.operating_point(0.01).threshold == pytest.approx(4.173, abs=0.001)
    cosine = compute_metrics(query, gallery, thresholds=True)
    assert cosine.pairs.operating_point(0.01).threshold == pytest.approx(1 - 0.0333, abs=0.001)


def test_roc_curves_rise_to_one_and_histograms_contain_all_pairs():
    metrics = metrics_from_distances(*setting(1), thresholds=True)
    fpr, tpr = metrics.pairs.roc()
    assert (np.diff(fpr) >= 0).all() and (np.diff(tpr) >= 0).all()
    assert fpr[-1] == tpr[-1] == 1
    edges, same, other = metrics.pairs.histogram(20)
    assert len(edges) == len(same) + 1 == len(other) + 1
    assert same.sum() == metrics.pairs.same.sum() and other.sum() == metrics.pairs.other.sum()


def test_metrics_with_thresholds_are_plain_json():
    found = json.loads(
        json.dumps(metrics_from_distances(*setting(2), thresholds=True, by_camera=True).to_dict())
    )
    assert [p["target"] for p in found["pairs"]["tpr_at_fpr"]] == [1e-4, 1e-3, 1e-2, 1e-1]
    assert found["cameras"][0].keys() == {
        "query_camid", "gallery_camid", "mAP", "rank_1", "queries",
    }  # fmt: skip


def test_a_threshold_needs_pairs_of_the_same_identity():
    labels = GalleryLabels(np.array([5]), np.array([1]), np.zeros(1, np.uint8))
    metrics = metrics_from_distances(np.ones((1, 1)), [7], [0], labels, thresholds=True)
    with pytest.raises(DataError, match="found 0 and 1"):
        metrics.pairs.operating_point(0.1)
    with pytest.raises(DataError, match="queries with a match, found none"):
        metrics.pairs.identification_point(0.1)
    assert metrics.to_dict()["pairs"] == {"pairs_same": 0, "pairs_other": 1}


def test_invalid_rates_and_negative_distances_are_refused():
    metrics = metrics_from_distances(*setting(0), thresholds=True)
    for rate in (0, 1, -0.1):
        with pytest.raises(ConfigError, match="between 0 and 1"):
            metrics.pairs.operating_point(rate)
    distances, *labels = setting(0)
    with pytest.raises(DataError, match="distances of 0 or more"):
        metrics_from_distances(-distances, *labels, thresholds=True)


@pytest.mark.parametrize("protocol", ["market", "none"])
def test_scores_of_a_camera_pair_equal_an_evaluation_of_these_images_alone(protocol):
    distances, pids, camids, labels = setting(3)
    metrics = metrics_from_distances(
        distances, pids, camids, labels, protocol=protocol, by_camera=True
    )
    assert len(metrics.cameras) == (6 if protocol == "market" else 9)
    for pair in metrics.cameras:
        rows, columns = camids == pair.query_camid, labels.camids == pair.gallery_camid
        part = metrics_from_distances(
            distances[np.ix_(rows, columns)],
            pids[rows],
            camids[rows],
            GalleryLabels(labels.pids[columns], labels.camids[columns], labels.roles[columns]),
            protocol=protocol,
        )
        assert pair.mAP == pytest.approx(part.mAP, abs=1e-12)
        assert pair.rank_1 == pytest.approx(part.rank(1), abs=1e-12)
        assert pair.queries == part.queries - part.queries_without_match
