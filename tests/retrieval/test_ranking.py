"""mAP, mINP and CMC against loops, and edge cases of the protocols."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import slow_retrieval as slow
import torch

from reidkit.errors import ConfigError, DataError
from reidkit.retrieval import (
    Embeddings,
    GalleryLabels,
    RankingConfig,
    compute_metrics,
    metrics_from_distances,
    top_n,
)
from reidkit.retrieval.metrics import average_precision, single_match_precision
from reidkit.retrieval.protocols import find_matches
from reidkit.retrieval.ranking import _by_counting, _by_sorting, _ranks_on_device, exclude
from reidkit.retrieval.significance import bootstrap

MIB = 2**20
ROLES = np.array(["person", "junk", "distractor"])


def clustered(rng, n, *, ids=8, cams=3, dim=12, integer=False):
    pids = rng.integers(0, ids, n)
    centres = np.random.default_rng(99).normal(size=(ids, dim))
    features = centres[pids] + rng.normal(size=(n, dim))
    if integer:  # small integers: many exact ties, and products without rounding
        features = np.round(features)
        features[:, 0] += 4
    return features.astype(np.float32), pids, rng.integers(0, cams, n)


def make(rng, n, *, roles=False, **options):
    features, pids, camids = clustered(rng, n, **options)
    names = ROLES[rng.choice(3, n, p=[0.7, 0.15, 0.15])] if roles else np.repeat("person", n)
    return Embeddings(features, pids, camids, names)


def names_of(embeddings):
    return ROLES[embeddings.roles]


def labels_of(embeddings):
    return GalleryLabels(embeddings.pids, embeddings.camids, embeddings.roles)


def assert_equals_loops(metrics, expected):
    assert metrics.mAP == pytest.approx(expected["mAP"], abs=1e-9)
    assert metrics.mINP == pytest.approx(expected["mINP"], abs=1e-9)
    assert metrics.cmc == pytest.approx(expected["cmc"], abs=1e-9)
    for q, found in enumerate(expected["per_query"]):
        if found is None:
            assert np.isnan(metrics.average_precision[q])
            assert metrics.first_ranks[q] == metrics.match_counts[q] == 0
        else:
            assert metrics.average_precision[q] == pytest.approx(found[0], abs=1e-9)
            assert metrics.first_ranks[q] == found[2]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("protocol", ["market", "none"])
def test_metrics_of_a_distance_matrix_equal_loops_with_ties_junk_and_distractors(seed, protocol):
    rng = np.random.default_rng(seed)
    query, gallery = make(rng, 25), make(rng, 160, roles=True)
    # one decimal: every row is full of ties
    distances = np.round(rng.random((25, 160)), 1 if seed % 2 else 9)
    metrics = metrics_from_distances(
        distances, query.pids, query.camids, labels_of(gallery), protocol=protocol
    )
    assert_equals_loops(
        metrics,
        slow.evaluation(
            distances,
            query.pids,
            query.camids,
            gallery.pids,
            gallery.camids,
            names_of(gallery),
            cameras=protocol == "market",
        ),
    )


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_metrics_of_features_equal_those_of_their_dense_distances(metric):
    rng = np.random.default_rng(3)
    query, gallery = make(rng, 40), make(rng, 300, roles=True)
    metrics = compute_metrics(query, gallery, RankingConfig(metric=metric))
    assert_equals_loops(
        metrics,
        slow.evaluation(
            slow.distance_matrix(query.features, gallery.features, metric),
            query.pids,
            query.camids,
            gallery.pids,
            gallery.camids,
            names_of(gallery),
        ),
    )


def test_ranks_of_identities_with_many_images_equal_the_loops():
    rng = np.random.default_rng(5)
    query, gallery = make(rng, 12, ids=2, integer=True), make(rng, 400, ids=2, integer=True)
    metrics = compute_metrics(query, gallery, RankingConfig(metric="euclidean", protocol="none"))
    assert metrics.match_counts.min() > 100
    assert_equals_loops(
        metrics,
        slow.evaluation(
            slow.distance_matrix(query.features, gallery.features, "euclidean"),
            query.pids,
            query.camids,
            gallery.pids,
            gallery.camids,
            names_of(gallery),
            cameras=False,
        ),
    )


def test_average_precision_by_hand():
    # match, other, match: (1/1 + 2/3) / 2; the hardest match is third: INP 2/3
    metrics = metrics_from_distances(
        np.array([[0.1, 0.2, 0.3]]),
        np.array([7]),
        np.array([1]),
        GalleryLabels(np.array([7, 8, 7]), np.array([2, 2, 2]), np.zeros(3, dtype=np.uint8)),
        max_rank=5,
    )
    assert metrics.mAP == pytest.approx(5 / 6)
    assert metrics.mINP == pytest.approx(2 / 3)
    assert metrics.cmc.tolist() == [1, 1, 1, 1, 1]


def ranking(flags, **options):
    """Metrics of one query whose gallery, nearest first, matches where a flag is set."""
    count = len(flags)
    gallery = GalleryLabels(
        np.where(flags, 7, 8), np.full(count, 2), np.zeros(count, dtype=np.uint8)
    )
    distances = np.arange(count, dtype=np.float64)[None]
    return metrics_from_distances(distances, np.array([7]), np.array([1]), gallery, **options)


def test_cmc_is_known_up_to_its_last_rank_only():
    found = ranking([False, False, True], max_rank=3)
    assert [found.rank(k) for k in (1, 2, 3)] == [0, 0, 1]
    for rank in (0, 4):
        with pytest.raises(DataError, match=rf"CMC was computed for ranks 1 to 3, not for {rank}"):
            found.rank(rank)


def test_a_query_with_one_match_has_the_inverse_of_its_rank_as_inp():
    assert ranking([False, False, False, True]).mINP == 1 / 4


def test_the_document_has_every_score_by_its_name():
    """Two queries, the second without a match; ranks of the first: 2 and 3 of three."""
    metrics = metrics_from_distances(
        np.array([[0.1, 0.2, 0.3, 0.0], [0.1, 0.2, 0.3, 0.0]]),
        np.array([7, 5]),
        np.array([1, 3]),
        GalleryLabels(np.array([8, 7, 7, 0]), np.array([2, 2, 2, 2]), np.array([0, 0, 0, 1], "u1")),
        max_rank=3,
    )
    ap = (1 / 2 + 2 / 3) / 2
    assert metrics.to_dict(per_query=True) == {
        "protocol": "market",
        "metric": "precomputed",
        "ap": "step",
        "rerank": None,
        "mAP": pytest.approx(ap),
        "mINP": pytest.approx(2 / 3),
        "cmc": [0, 1, 1],
        "queries": 2,
        "queries_without_match": 1,
        "identities": 2,
        "gallery": 3,
        "junk": 1,
        "per_query": {
            "pid": [7, 5],
            "camid": [1, 3],
            "matches": [2, 0],
            "first_rank": [2, 0],
            "average_precision": [pytest.approx(ap), None],
            "inverse_negative_penalty": [pytest.approx(2 / 3), None],
            "rank_1": [0, None],
        },
    }


def test_intervals_are_those_of_each_score_over_identities():
    rng = np.random.default_rng(8)
    query, gallery = make(rng, 30), make(rng, 120)
    metrics = compute_metrics(query, gallery)
    found = metrics.intervals(samples=50, level=0.9, seed=3)
    scores = (metrics.average_precision, metrics.inverse_negative_penalty, metrics.rank_1)
    assert list(found) == ["mAP", "mINP", "rank-1"]
    for interval, values in zip(found.values(), scores, strict=True):
        assert interval == bootstrap(values, metrics.pids, samples=50, level=0.9, seed=3)
    assert metrics.intervals()["mAP"] == bootstrap(
        metrics.average_precision, metrics.pids, samples=2000, level=0.95, seed=0
    )


def test_trapezoidal_ap_by_hand():
    # points (recall, precision) of match, other, match, from (0, 1): (1/2, 1), (1/2, 1/2), (1, 2/3)
    found = ranking([True, False, True], ap="trapezoid")
    assert found.mAP == pytest.approx((1 + 1) / 2 / 2 + (1 / 2 + 2 / 3) / 2 / 2)
    assert found.to_dict()["ap"] == "trapezoid"
    # a match in second place only: the curve rises from (0, 0) to (1, 1/2)
    assert ranking([False, True], ap="trapezoid").mAP == pytest.approx(1 / 4)
    assert ranking([True, True], ap="trapezoid").mAP == 1.0


@pytest.mark.parametrize("seed", range(20))
def test_both_rules_of_ap_equal_those_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    flags = rng.random(60) < rng.uniform(0.02, 0.9)
    flags[rng.integers(60)] = True
    step, trapezoid = (ranking(flags, ap=rule) for rule in ("step", "trapezoid"))
    assert step.mAP == pytest.approx(slow.step_ap(flags), abs=1e-12)
    assert trapezoid.mAP == pytest.approx(slow.trapezoid_ap(flags), abs=1e-12)
    assert (step.mINP, step.cmc.tolist()) == (trapezoid.mINP, trapezoid.cmc.tolist())


def test_the_rule_of_ap_is_step_unless_set_and_also_that_of_camera_pairs():
    ranks, offsets = np.array([2, 3]), np.array([0, 2])
    assert average_precision(ranks, offsets) == average_precision(ranks, offsets, rule="step")
    assert (single_match_precision(ranks) == single_match_precision(ranks, rule="step")).all()
    rng = np.random.default_rng(4)
    query, gallery = make(rng, 20), make(rng, 120)
    default = compute_metrics(query, gallery, by_camera=True)
    step, trapezoid = (
        compute_metrics(query, gallery, RankingConfig(ap=rule), by_camera=True)
        for rule in ("step", "trapezoid")
    )
    assert default.ap == "step" and default.mAP == step.mAP > trapezoid.mAP
    for by_step, by_trapezoid in zip(step.cameras, trapezoid.cameras, strict=True):
        assert by_step.mAP > by_trapezoid.mAP
        assert by_step.rank_1 == by_trapezoid.rank_1
    with pytest.raises(ConfigError, match=r"unknown rule of AP steps. Did you mean step\?"):
        RankingConfig(ap="steps")


def test_ties_are_broken_by_gallery_order():
    labels = GalleryLabels(np.array([8, 7]), np.array([2, 2]), np.zeros(2, dtype=np.uint8))
    tied = np.array([[0.5, 0.5]])
    assert metrics_from_distances(tied, np.array([7]), np.array([1]), labels).mAP == 0.5
    assert metrics_from_distances(tied, np.array([8]), np.array([1]), labels).mAP == 1.0


def test_junk_is_ignored_and_distractors_count_as_negatives():
    distances = np.array([[0.1, 0.2, 0.3]])
    pids, cams = np.array([7, 0, 7]), np.array([2, 2, 2])
    for role, expected in ((1, 1.0), (2, 0.5)):
        labels = GalleryLabels(pids, cams, np.array([role, 1, 0], dtype=np.uint8))
        metrics = metrics_from_distances(distances, np.array([7]), np.array([1]), labels)
        assert metrics.mAP == expected
        assert metrics.match_counts.tolist() == [1]


def test_queries_without_a_match_are_counted_but_not_scored():
    labels = GalleryLabels(np.array([7, 8, 9]), np.array([1, 2, 2]), np.array([0, 0, 1], np.uint8))
    # 7 is only in images of the query's own camera, 9 is junk, 5 is not in the gallery
    metrics = metrics_from_distances(
        np.ones((4, 3)), np.array([7, 8, 9, 5]), np.array([1, 1, 1, 1]), labels
    )
    assert (metrics.queries, metrics.queries_without_match) == (4, 3)
    assert metrics.match_counts.tolist() == [0, 1, 0, 0]
    assert metrics.mAP == 0.5  # item 7 is as near to query 8 as item 8 and earlier in the gallery


def test_a_gallery_of_junk_gives_nan_and_null_in_json():
    labels = GalleryLabels(np.array([7, 8]), np.array([1, 2]), np.array([1, 1], np.uint8))
    metrics = metrics_from_distances(np.ones((1, 2)), np.array([7]), np.array([9]), labels)
    assert np.isnan(metrics.mAP)
    assert metrics.queries_without_match == 1
    assert metrics.to_dict()["mAP"] is None
    assert metrics.to_dict()["cmc"][0] is None


def test_one_query_and_one_gallery_image():
    one = Embeddings(np.ones((1, 4), np.float32), [3], [0])
    other = Embeddings(np.ones((1, 4), np.float32), [3], [1])
    assert compute_metrics(one, other).mAP == 1.0
    assert compute_metrics(one, one).queries_without_match == 1
    assert compute_metrics(one, one, RankingConfig(protocol="none")).mAP == 1.0


def test_a_single_camera_gives_no_match_under_market_and_matches_under_none():
    rng = np.random.default_rng(0)
    query, gallery = make(rng, 10, cams=1), make(rng, 50, cams=1)
    assert compute_metrics(query, gallery).queries_without_match == 10
    assert (
        compute_metrics(query, gallery, RankingConfig(protocol="none")).queries_without_match == 0
    )


def test_the_gallery_of_mars_is_query_followed_by_gallery():
    rng = np.random.default_rng(8)
    query, gallery = make(rng, 30), make(rng, 90)
    metrics = compute_metrics(query, gallery, RankingConfig(protocol="mars"))
    both = np.concatenate([query.features, gallery.features])
    assert metrics.gallery_size == 120
    assert_equals_loops(
        metrics,
        slow.evaluation(
            slow.distance_matrix(query.features, both),
            query.pids,
            query.camids,
            np.concatenate([query.pids, gallery.pids]),
            np.concatenate([query.camids, gallery.camids]),
            np.repeat("person", 120),
        ),
    )


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_a_memory_budget_changes_no_metric(metric, monkeypatch):
    rng = np.random.default_rng(1)
    query, gallery = make(rng, 50), make(rng, 200, roles=True)
    free = compute_metrics(query, gallery, RankingConfig(metric=metric))
    tight = compute_metrics(query, gallery, RankingConfig(metric=metric, max_memory=17 * MIB))
    assert np.nanmax(np.abs(free.average_precision - tight.average_precision)) < 1e-6
    assert free.cmc == pytest.approx(tight.cmc, abs=1e-6)
    monkeypatch.setattr("reidkit.retrieval.blocks.BLOCK_ROWS", 7)
    blocked = compute_metrics(query, gallery, RankingConfig(metric=metric))
    assert np.nanmax(np.abs(free.average_precision - blocked.average_precision)) < 1e-6
    with pytest.raises(ConfigError, match=r"budget of 1 MiB is too small for one row .* 17 MiB"):
        compute_metrics(query, gallery, RankingConfig(metric=metric, max_memory=MIB))


@pytest.mark.parametrize("ranking", [_by_counting, _by_sorting])
def test_ranks_on_other_devices_equal_those_on_the_cpu(ranking, monkeypatch):
    rng = np.random.default_rng(2)
    query, gallery = make(rng, 30), make(rng, 150)
    matches = find_matches(query.pids, query.camids, labels_of(gallery))
    block = torch.from_numpy(np.round(rng.random((30, 150)), 1))
    monkeypatch.setattr("reidkit.retrieval.ranking._by_counting", ranking)
    expected = metrics_from_distances(block.numpy(), query.pids, query.camids, labels_of(gallery))
    exclude(block, matches, 0)
    found = _ranks_on_device(block, matches, 0)
    best = [found[a:b].min(initial=999) for a, b in pairwise(matches.offsets)]
    assert [f % 999 for f in best] == expected.first_ranks.tolist()


@pytest.mark.parametrize("protocol", ["none", "market", "mars"])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_top_n_equals_the_first_items_of_the_slow_ranking(protocol, metric):
    rng = np.random.default_rng(6)
    query, gallery = make(rng, 20, integer=True), make(rng, 80, roles=True, integer=True)
    found = top_n(
        query, gallery, 15, RankingConfig(protocol=protocol, metric=metric, max_memory=17 * MIB)
    )
    parts = [query, gallery] if protocol == "mars" else [gallery]
    features = np.concatenate([p.features for p in parts])
    labels = [
        np.concatenate([v(p) for p in parts])
        for v in (lambda p: p.pids, lambda p: p.camids, names_of)
    ]
    distances = slow.distance_matrix(query.features, features, metric)
    for q in range(20):
        _, ranked = slow.ranked_matches(
            np.round(distances[q], 6),
            query.pids[q],
            query.camids[q],
            *labels,
            cameras=protocol != "none",
        )
        assert found.distances[q] == pytest.approx(distances[q][ranked[:15]], abs=1e-3)
        if metric == "euclidean":
            assert found.indices[q].tolist() == ranked[:15]


def test_short_ranked_lists_are_filled_with_minus_one():
    query = Embeddings(np.ones((1, 4), np.float32), [3], [0])
    gallery = Embeddings(np.eye(4, dtype=np.float32), [3, 3, 4, 5], [0, 1, 1, 1], [0, 0, 0, 1])
    found = top_n(query, gallery, 10, RankingConfig(protocol="market"))
    assert found.indices.tolist() == [[1, 2, -1, -1]]
    assert np.isinf(found.distances[0, 2:]).all()


def test_progress_ends_with_the_number_of_queries(monkeypatch):
    rng = np.random.default_rng(0)
    calls = []
    monkeypatch.setattr("reidkit.retrieval.blocks.BLOCK_ROWS", 3)
    query, gallery = make(rng, 10), make(rng, 30)
    compute_metrics(query, gallery, on_progress=lambda *call: calls.append(call))
    assert calls[-1] == ("ranking", 10, 10)
    assert len(calls) > 1


def test_the_message_about_an_unknown_name_suggests_the_nearest_one():
    rng = np.random.default_rng(0)
    query, gallery = make(rng, 2), make(rng, 5)
    with pytest.raises(ConfigError, match="Did you mean market"):
        compute_metrics(query, gallery, RankingConfig(protocol="markt"))
    with pytest.raises(ConfigError, match="Did you mean cosine"):
        compute_metrics(query, gallery, RankingConfig(metric="cosin"))


def test_query_and_gallery_vectors_of_different_lengths_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(DataError, match=r"query.h5 has vectors of length 12, gallery.h5 of .* 9"):
        compute_metrics(
            Embeddings(*clustered(rng, 3), name="query.h5"),
            Embeddings(*clustered(rng, 3, dim=9), name="gallery.h5"),
        )
