"""The nearest true match and the nearest negative of a query, against a loop over sorted rows."""

import numpy as np
import pytest

from reidkit.retrieval import Embeddings, RankingConfig, RerankConfig, compute_metrics
from reidkit.retrieval.search import lists_with_junk, nearest_matches


def sampled(count: int, *, seed: int) -> Embeddings:
    rng = np.random.default_rng(seed)
    roles = rng.choice(3, count, p=[0.8, 0.1, 0.1]) if seed else np.zeros(count, np.int64)
    features = rng.standard_normal((count, 6)).astype(np.float32)
    return Embeddings(
        features, rng.integers(1, 9, count), rng.integers(1, 4, count), roles.astype(np.uint8)
    )


@pytest.mark.parametrize("protocol", ["market", "none", "mars"])
@pytest.mark.parametrize("rerank", [None, RerankConfig(5, 2, 0.3)])
def test_lists_agree_with_the_ranks_of_the_evaluation(
    protocol: str, rerank: RerankConfig | None
) -> None:
    query, gallery = sampled(30, seed=0), sampled(80, seed=1)
    config = RankingConfig(protocol, rerank=rerank)
    first = compute_metrics(query, gallery, config).first_ranks
    nearest = nearest_matches(query, gallery, config)
    lists = lists_with_junk(query, gallery, np.arange(30), 200, config, max_excluded=0)
    for q, hits in enumerate(lists):
        places = [k for k, hit in enumerate(hits, start=1) if hit.match]
        assert first[q] == (places[0] if places else 0)
        right = next((hit for hit in hits if hit.match), None)
        wrong = next((hit for hit in hits if not hit.match), None)
        for hit, index, distance in (
            (right, nearest.right[q], nearest.right_distance[q]),
            (wrong, nearest.wrong[q], nearest.wrong_distance[q]),
        ):
            assert index == (hit.index if hit else -1)
            assert distance == pytest.approx(hit.distance if hit else np.inf)


def test_excluded_items_are_shown_up_to_their_limit() -> None:
    query = Embeddings(np.array([[1, 0]], np.float32), np.array([1]), np.array([1]))
    angles = np.deg2rad(np.arange(1, 9))
    gallery = Embeddings(
        np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32),
        np.array([1, 1, 1, 1, 2, 1, 3, 4]),
        np.array([1, 1, 1, 1, 1, 2, 1, 1]),
    )
    (hits,) = lists_with_junk(query, gallery, np.array([0]), 2, RankingConfig(), max_excluded=3)
    assert [(hit.index, hit.excluded, hit.match) for hit in hits] == [
        *((0, True, False), (1, True, False), (2, True, False)),
        *((4, False, False), (5, False, True)),
    ]
