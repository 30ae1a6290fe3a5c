"""Query expansion, database augmentation and multi-query against loops."""

from __future__ import annotations

import numpy as np
import pytest

from reidkit.errors import ConfigError, DataError
from reidkit.retrieval import (
    Embeddings,
    augment_database,
    compute_metrics,
    expand_queries,
    pool_queries,
)


def make(rng, n, *, junk=0.0):
    pids = rng.integers(0, 15, n)
    centres = np.random.default_rng(5).normal(size=(15, 12))
    features = (centres[pids] + 1.1 * rng.normal(size=(n, 12))).astype(np.float32)
    return Embeddings(features, pids, rng.integers(0, 3, n), (rng.random(n) < junk).astype(int))


def unit(x):
    x = x.astype(np.float64)
    return x / np.sqrt((x * x).sum(-1, keepdims=True))


def weighted_sum(own, others, n, alpha):
    cosines = others @ own
    near = sorted(range(len(others)), key=lambda i: -cosines[i])[:n]
    total = own.copy()
    for i in near:
        total += (max(cosines[i], 0) ** alpha if alpha else 1) * others[i]
    return unit(total)


@pytest.mark.parametrize("alpha", [0, 3])
def test_expanded_queries_equal_the_loop(alpha):
    rng = np.random.default_rng(0)
    query, gallery = make(rng, 20), make(rng, 90, junk=0.2)
    found = expand_queries(query, gallery, n=7, alpha=alpha)
    others = unit(gallery.features[gallery.roles == 0])
    for q in range(20):
        expected = weighted_sum(unit(query.features[q]), others, 7, alpha)
        assert found.features[q] == pytest.approx(expected, abs=1e-5)
    assert found.pids.tolist() == query.pids.tolist()


@pytest.mark.parametrize("alpha", [0, 2])
def test_the_augmented_database_equals_the_loop_and_junk_is_unchanged(alpha):
    rng = np.random.default_rng(1)
    gallery = make(rng, 60, junk=0.2)
    found = augment_database(gallery, n=5, alpha=alpha)
    persons = np.flatnonzero(gallery.roles == 0)
    vectors = unit(gallery.features)
    for g in range(60):
        if g in persons:
            others = vectors[persons[persons != g]]
            assert found.features[g] == pytest.approx(
                weighted_sum(vectors[g], others, 5, alpha), abs=1e-5
            )
        else:
            assert found.features[g] == pytest.approx(vectors[g], abs=1e-6)
    assert found.roles.tolist() == gallery.roles.tolist()


def test_expansion_and_augmentation_improve_map_if_identities_form_clusters():
    rng = np.random.default_rng(2)
    query, gallery = make(rng, 60), make(rng, 600)
    plain = compute_metrics(query, gallery).mAP
    better = augment_database(gallery, n=10, alpha=3)
    assert compute_metrics(expand_queries(query, gallery, n=5, alpha=3), gallery).mAP > plain
    assert compute_metrics(query, better).mAP > plain


def test_more_neighbours_than_gallery_items_are_limited_to_the_gallery():
    rng = np.random.default_rng(3)
    query, gallery = make(rng, 3), make(rng, 4)
    assert np.isfinite(expand_queries(query, gallery, n=50).features).all()
    assert np.isfinite(augment_database(gallery, n=50, alpha=1).features).all()


@pytest.mark.parametrize("pooling,reduce", [("mean", np.mean), ("max", np.max)])
def test_multi_query_pools_the_images_of_one_identity_by_one_camera(pooling, reduce):
    rng = np.random.default_rng(4)
    images = make(rng, 120)
    query = images.take(np.arange(0, 120, 7))
    found = pool_queries(query, images, pooling=pooling)
    for q in range(len(query)):
        rows = [
            unit(images.features[i])
            for i in range(120)
            if images.pids[i] == query.pids[q] and images.camids[i] == query.camids[q]
        ]
        assert found.features[q] == pytest.approx(reduce(rows, axis=0), abs=1e-6)


def test_a_query_without_images_to_pool_is_refused():
    rng = np.random.default_rng(4)
    query = Embeddings(rng.normal(size=(1, 12)), [99], [0], name="query.h5")
    with pytest.raises(DataError, match=r"no image of identity 99 by camera 0 \(query 0"):
        pool_queries(query, make(rng, 20))


def test_invalid_settings_are_refused():
    rng = np.random.default_rng(0)
    query, gallery = make(rng, 2), make(rng, 5)
    with pytest.raises(ConfigError, match="at least one neighbour"):
        expand_queries(query, gallery, n=0)
    with pytest.raises(ConfigError, match="alpha of at least 0"):
        augment_database(gallery, alpha=-1)
    with pytest.raises(ConfigError, match="Did you mean mean"):
        pool_queries(query, gallery, pooling="maen")
