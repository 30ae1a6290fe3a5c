"""Exact search block by block finds what sorting all cosines finds."""

import numpy as np
import pytest
from numpy.typing import NDArray

from reidkit.errors import DataError
from reidkit.features import Features
from reidkit.index import exact
from reidkit.index.exact import search_exact
from reidkit.index.searching import search_features, search_images
from reidkit.vectors import unit_rows


def unit_vectors(count: int, *, seed: int, dim: int = 8) -> NDArray[np.float32]:
    return unit_rows(np.random.default_rng(seed).standard_normal((count, dim)))


def slow_search(
    queries: NDArray[np.float32], gallery: NDArray[np.float32], n: int
) -> NDArray[np.int64]:
    return np.argsort(-(queries @ gallery.T), axis=1, kind="stable")[:, :n]


@pytest.mark.parametrize("G", [1, 5, 2047, 2048, 2049, 30_000])
@pytest.mark.parametrize("n", [1, 10])
def test_blocks_of_any_number_give_the_sorted_list(
    G: int, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact, "BLOCK_BYTES", 1 << 18)
    queries, gallery = unit_vectors(300, seed=1), unit_vectors(G, seed=2)
    found, cosines = search_exact(queries, lambda a, b: gallery[a:b], G, n)
    expected = slow_search(queries, gallery, n)
    k = expected.shape[1]
    assert np.array_equal(found[:, :k], expected)
    assert np.allclose(cosines[:, :k], np.take_along_axis(queries @ gallery.T, expected, 1))
    assert (found[:, k:] == -1).all() and np.isneginf(cosines[:, k:]).all()


def test_ties_are_in_gallery_order_across_blocks() -> None:
    one = unit_vectors(1, seed=3)
    gallery = np.repeat(one, 10_000, axis=0)
    found, _ = search_exact(one, lambda a, b: gallery[a:b], len(gallery), 5)
    assert found.tolist() == [[0, 1, 2, 3, 4]]


def test_only_allowed_items_are_found() -> None:
    queries, gallery = unit_vectors(20, seed=4), unit_vectors(5000, seed=5)
    allowed = np.zeros(5000, np.bool_)
    allowed[[3, 4000, 4999]] = True
    found, _ = search_exact(queries, lambda a, b: gallery[a:b], 5000, 5, allowed=allowed)
    assert {frozenset(row) for row in found.tolist()} == {frozenset({3, 4000, 4999, -1})}


def test_the_gallery_is_never_read_whole() -> None:
    gallery = unit_vectors(100_000, seed=6, dim=64)
    sizes: list[int] = []

    def block(start: int, stop: int) -> NDArray[np.float32]:
        sizes.append(gallery[start:stop].nbytes)
        return gallery[start:stop]

    search_exact(unit_vectors(3, seed=7, dim=64), block, len(gallery), 10)
    assert max(sizes) <= exact.BLOCK_BYTES


def unlabelled(features: NDArray[np.float32]) -> Features:
    N = len(features)
    labels = np.full(N, -1)
    paths = tuple(f"{row}.jpg" for row in range(N))
    return Features(features, labels, labels, paths, np.zeros(N, np.uint8))


@pytest.mark.parametrize("n", [1, 10, 60])
def test_images_are_found_in_the_order_of_a_search_of_their_features(n: int) -> None:
    rng = np.random.default_rng(8)
    vectors = rng.standard_normal((50, 16)).astype(np.float32) * 7
    vectors[20:25] = vectors[3]  # ties: in gallery order
    query, gallery = unlabelled(vectors[:4]), unlabelled(vectors)
    found, expected = search_images(query, gallery, n), search_features(query, gallery, n)
    for hits, others in zip(found, expected, strict=True):
        assert len(hits) == min(n, 50)
        assert [hit.record for hit in hits] == [hit.record for hit in others]
        distances = [hit.distance for hit in hits]
        assert distances == pytest.approx([hit.distance for hit in others], abs=1e-6)
        assert min(distances) >= 0


def test_images_without_a_direction_are_refused() -> None:
    vectors = unit_vectors(3, seed=9)
    zero = vectors * [[1], [0], [1]]
    nan = np.where(zero == 0, np.nan, zero)
    for bad, name in ((zero, "vectors are zero"), (nan, "contain NaN or infinity")):
        with pytest.raises(DataError, match=f"queries: .* {name}"):
            search_images(unlabelled(bad), unlabelled(vectors), 1)
        with pytest.raises(DataError, match=f"gallery: .* {name}"):
            search_images(unlabelled(vectors), unlabelled(bad), 1)


def test_images_of_two_models_are_not_compared() -> None:
    query, gallery = unlabelled(unit_vectors(1, seed=1)), unlabelled(unit_vectors(2, seed=2, dim=9))
    with pytest.raises(DataError, match="dimension is 9 there and 8 here"):
        search_images(query, gallery, 1)
