"""Exact search block by block finds what sorting all cosines finds."""

import numpy as np
import pytest
from numpy.typing import NDArray

from reidkit.index import exact
from reidkit.index.exact import search_exact
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
