"""CUHK03's classic protocol: sampled galleries with one image per identity."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from reidkit.retrieval import GalleryLabels, metrics_from_distances


def labels(pids, camids=None, roles=None):
    pids = np.asarray(pids)
    return GalleryLabels(
        pids,
        np.ones(len(pids), int) if camids is None else np.asarray(camids),
        np.zeros(len(pids), np.uint8) if roles is None else np.asarray(roles, np.uint8),
    )


def test_the_mean_over_samples_approaches_that_over_all_possible_galleries(monkeypatch):
    from reidkit.retrieval import protocols

    rng = np.random.default_rng(0)
    pids = np.array([1, 1, 1, 2, 2, 3, 3, 3, 4])
    distances = rng.random((1, 9))
    many = protocols.Protocol("many", num_galleries=20_000, sampled_precision=True)
    monkeypatch.setitem(protocols.PROTOCOLS, "many", many)
    metrics = metrics_from_distances(distances, [1], [0], labels(pids), protocol="many", max_rank=4)
    ranks = []
    for gallery in itertools.product(*(np.flatnonzero(pids == p) for p in (1, 2, 3, 4))):
        ranks.append(1 + sum(distances[0, g] < distances[0, gallery[0]] for g in gallery[1:]))
    ranks = np.array(ranks)
    assert metrics.mAP == pytest.approx(np.mean(1 / ranks), abs=0.01)
    assert metrics.mINP == metrics.mAP
    assert metrics.cmc == pytest.approx([np.mean(ranks <= k) for k in range(1, 5)], abs=0.01)
    assert metrics.rank_1[0] == pytest.approx(metrics.rank(1))


def test_with_one_image_per_identity_the_sampled_gallery_is_the_whole_one():
    rng = np.random.default_rng(1)
    pids = np.arange(30)
    distances = np.round(rng.random((20, 30)), 1)  # ties go to the earlier in the gallery
    whole = metrics_from_distances(distances, pids[:20], np.zeros(20, int), labels(pids))
    for protocol in ("cuhk03-classic", "cuhk03-classic-sampled"):
        sampled = metrics_from_distances(
            distances, pids[:20], np.zeros(20, int), labels(pids), protocol=protocol
        )
        assert sampled.cmc == pytest.approx(whole.cmc)
        assert sampled.mAP == pytest.approx(whole.mAP)
        assert sampled.rank_1.tolist() == whole.rank_1.tolist()


def test_the_two_published_variants_differ_in_where_precision_is_taken():
    rng = np.random.default_rng(2)
    pids = rng.integers(0, 10, 100)
    setting = (rng.random((10, 100)), np.arange(10), np.zeros(10, int), labels(pids))
    market = metrics_from_distances(*setting)
    full = metrics_from_distances(*setting, protocol="cuhk03-classic")
    sampled = metrics_from_distances(*setting, protocol="cuhk03-classic-sampled")
    assert full.mAP == market.mAP  # sampling affects CMC only
    assert (
        sampled.mAP > 1.5 * market.mAP
    )  # one match among ten ranks higher than ten among a hundred
    assert full.rank(1) == pytest.approx(sampled.rank(1), abs=0.15)


def test_samples_depend_on_the_seed_alone():
    rng = np.random.default_rng(3)
    pids = rng.integers(0, 10, 100)
    setting = (rng.random((10, 100)), np.arange(10), np.zeros(10, int), labels(pids))
    one, again, other = (
        metrics_from_distances(*setting, protocol="cuhk03-classic", seed=s).cmc for s in (5, 5, 6)
    )
    assert one.tolist() == again.tolist() != other.tolist()


def test_every_query_samples_its_own_galleries():
    rng = np.random.default_rng(4)
    pids = rng.integers(0, 10, 100)
    distances = np.repeat(rng.random((1, 100)), 20, axis=0)
    metrics = metrics_from_distances(
        distances, np.full(20, 3), np.zeros(20, int), labels(pids), protocol="cuhk03-classic"
    )
    assert len(set(metrics.rank_1.tolist())) > 1  # the same distances, different galleries


def test_same_camera_and_junk_are_never_sampled_and_unmatched_queries_are_counted():
    # the nearest item is identity 1 by the query's camera (0), the next one is junk
    metrics = metrics_from_distances(
        np.array([[0.0, 0.1, 0.5, 0.6], [0.5, 0.5, 0.5, 0.5]]),
        [1, 9],
        [0, 0],
        labels([1, 2, 1, 2], [0, 1, 1, 1], [0, 1, 0, 0]),
        protocol="cuhk03-classic",
    )
    assert metrics.rank_1[0] == 1.0
    assert np.isnan(metrics.rank_1[1])
    assert metrics.rank(1) == 1.0
    assert metrics.queries_without_match == 1


def test_trapezoidal_ap_of_sampled_galleries_halves_all_but_first_ranks():
    rng = np.random.default_rng(5)
    setting = (rng.random((1, 40)), [3], [0], labels(rng.integers(0, 10, 40)))
    options = {"protocol": "cuhk03-classic-sampled", "max_rank": 10}
    step = metrics_from_distances(*setting, **options)
    trapezoid = metrics_from_distances(*setting, **options, ap="trapezoid")
    # one match at rank r: 1/r by steps; 1 for r = 1 and 1/(2r) otherwise by trapezoids
    assert 0 < step.rank_1[0] < 1
    assert trapezoid.mAP == pytest.approx((step.mAP + step.rank_1[0]) / 2)
    assert trapezoid.mINP == step.mINP
