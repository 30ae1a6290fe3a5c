"""Confidence intervals and paired tests."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from reidkit.errors import DataError
from reidkit.retrieval import (
    Embeddings,
    bootstrap,
    compare,
    compute_metrics,
    paired_test,
)


def test_the_p_value_is_the_share_of_sign_patterns_with_at_least_as_large_a_difference():
    rng = np.random.default_rng(0)
    first, second = rng.random(24), rng.random(24) + 0.1
    pids = np.repeat(np.arange(8), 3)
    found = paired_test(first, second, pids, samples=40_000)
    sums = (second - first).reshape(8, 3).sum(1)
    patterns = np.array(list(itertools.product([-1, 1], repeat=8)))
    exact = np.mean(np.abs(patterns @ sums) >= abs(sums.sum()) - 1e-12)
    assert found.p_value == pytest.approx(exact, abs=0.01)
    assert found.difference == pytest.approx((second - first).mean())
    assert (found.queries, found.identities) == (24, 8)
    assert found.low < found.difference < found.high


def test_queries_of_one_identity_count_as_one_observation():
    # 400 queries, all better, but of two identities only: not significant
    second = np.full(400, 0.9)
    assert paired_test(np.full(400, 0.8), second, np.repeat([1, 2], 200)).p_value > 0.4
    assert paired_test(np.full(400, 0.8), second, np.arange(400)).p_value < 0.001


def test_equal_models_do_not_differ():
    values = np.random.default_rng(0).random(50)
    found = paired_test(values, values, np.arange(50))
    assert (found.difference, found.p_value, found.low, found.high) == (0, 1, 0, 0)


def test_chance_differences_are_significant_as_often_as_the_level_says():
    rng = np.random.default_rng(1)
    small = 0
    for trial in range(200):
        identity = np.repeat(np.arange(40), 4)
        first, second = (rng.normal(size=160) + rng.normal(size=40)[identity] for _ in range(2))
        small += paired_test(first, second, identity, samples=200, seed=trial).p_value < 0.05
    assert 1 <= small <= 22  # 10 expected


def test_the_interval_widens_when_queries_depend_on_their_identity():
    rng = np.random.default_rng(2)
    identity = np.repeat(np.arange(50), 10)
    values = rng.normal(size=50)[identity]
    together, apart = bootstrap(values, identity), bootstrap(values, np.arange(500))
    assert together.mean == pytest.approx(apart.mean) == pytest.approx(values.mean())
    assert together.high - together.low > 2 * (apart.high - apart.low)
    # for fifty means of equal weight the interval is that of a mean of fifty
    expected = 2 * 1.96 * values.reshape(50, 10)[:, 0].std() / np.sqrt(50)
    assert together.high - together.low == pytest.approx(expected, rel=0.1)


def test_queries_without_a_match_do_not_count():
    values = np.array([0.5, np.nan, 0.7, np.nan])
    found = bootstrap(values, [1, 1, 2, 3])
    assert found.mean == pytest.approx(0.6)
    both = paired_test(values, values + 0.1, [1, 1, 2, 3])
    assert (both.queries, both.identities) == (2, 2)
    with pytest.raises(DataError, match="no query has a match"):
        bootstrap([np.nan], [1])


def test_lists_of_different_data_are_refused():
    with pytest.raises(DataError, match="2 and 3 queries"):
        paired_test([0.1, 0.2], [0.1, 0.2, 0.3], [1, 2])
    with pytest.raises(DataError, match=r"1 queries have a match in only one .* index 1"):
        paired_test([0.1, 0.2], [0.1, np.nan], [1, 2])


def results():
    rng = np.random.default_rng(3)
    pids, gallery_pids = np.repeat(np.arange(20), 3), np.repeat(np.arange(20), 10)
    centres = rng.normal(size=(20, 16))

    def make(p, noise):
        features = centres[p] + noise * rng.normal(size=(len(p), 16))
        return Embeddings(features.astype(np.float32), p, np.arange(len(p)) % 5)

    return [compute_metrics(make(pids, s), make(gallery_pids, s)) for s in (1.5, 1.0)]


def test_results_are_compared_by_their_json_documents():
    documents = [json.loads(json.dumps(r.to_dict(per_query=True))) for r in results()]
    found = compare(*documents)
    assert list(found) == ["mAP", "mINP", "rank-1"]
    for name, key in (("mAP", "mAP"), ("mINP", "mINP")):
        assert found[name].first == pytest.approx(documents[0][key])
        assert found[name].second == pytest.approx(documents[1][key])
    assert found["rank-1"].second == pytest.approx(documents[1]["cmc"][0])
    assert found["mAP"].p_value < 0.01


def test_comparing_needs_per_query_scores_of_the_same_queries():
    documents = [r.to_dict(per_query=True) for r in results()]
    with pytest.raises(DataError, match="no per-query scores"):
        compare(documents[0], {"mAP": 0.5})
    with pytest.raises(DataError, match=r"different rules of AP \(step and trapezoid\)"):
        compare(documents[0], {**documents[1], "ap": "trapezoid"})
    documents[1]["per_query"]["pid"] = documents[1]["per_query"]["pid"][1:]
    with pytest.raises(DataError, match=r"different queries \(60 and 59"):
        compare(*documents)


def test_intervals_contain_the_scores():
    metrics = results()[0]
    found = metrics.intervals(samples=300)
    assert found["mAP"].mean == pytest.approx(metrics.mAP)
    assert found["rank-1"].mean == pytest.approx(metrics.rank(1))
    for interval in found.values():
        assert interval.low <= interval.mean <= interval.high
