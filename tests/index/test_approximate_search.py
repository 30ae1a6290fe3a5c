"""Approximate search by FAISS: its recall is measured, and it never finds what is not there."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from reidkit.errors import ConfigError
from reidkit.index.approximate import (
    ApproximateDirectory,
    build_approximation,
    read_approximation,
)
from reidkit.index.directory import IndexDirectory
from reidkit.index.opening import open_index
from reidkit.index.records import Filter, Header, Record

pytest.importorskip("faiss", reason="needs the extra faiss")

HEADER = Header(model="m.onnx", model_sha256="ab", preprocess="{}", flip=False, dimension=16)


def people(count: int, *, seed: int) -> NDArray[np.float32]:
    """Vectors in clusters of eight, as of people with eight images each."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((count // 8 + 1, 16)).repeat(8, axis=0)[:count]
    return (centres + 0.3 * rng.standard_normal((count, 16))).astype(np.float32)


@pytest.fixture(params=["ivf", "hnsw"])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> ApproximateDirectory:
    index = ApproximateDirectory.create(tmp_path / "people.index", HEADER)
    records = [Record(f"p{k}", camera=k % 4) for k in range(4000)]
    index.add(people(4000, seed=1), records)
    found = build_approximation(index, request.param)
    assert found.kind == request.param
    opened = open_index(index.name)
    assert isinstance(opened, ApproximateDirectory)
    return opened


def found_paths(index: IndexDirectory, queries: NDArray[np.float32], n: int) -> list[set[str]]:
    return [{hit.record.path for hit in hits} for hits in index.search(queries, n)]


def test_the_stored_recall_is_that_of_new_queries(index: ApproximateDirectory) -> None:
    approximation = read_approximation(index)
    assert approximation is not None and approximation.recall > 0.9
    queries = people(4000, seed=1)[::20] + np.float32(0.05)
    exact = IndexDirectory(index.path)
    pairs = zip(found_paths(index, queries, 10), found_paths(exact, queries, 10), strict=True)
    recall = np.mean([len(mine & theirs) / 10 for mine, theirs in pairs])
    assert recall == pytest.approx(approximation.recall, abs=0.06)


def test_vectors_added_later_are_found_and_removed_ones_are_not(
    index: ApproximateDirectory,
) -> None:
    new = people(20, seed=2)
    index.add(new, [Record(f"new{k}") for k in range(20)])
    assert [next(iter(s)) for s in found_paths(index, new, 1)] == [f"new{k}" for k in range(20)]
    index.remove(["new3", "p8"])
    queries = np.stack([new[3], people(4000, seed=1)[8]])
    assert all(not s & {"new3", "p8"} for s in found_paths(index, queries, 10))


def test_conditions_hold_in_approximate_search(index: ApproximateDirectory) -> None:
    (hits,) = index.search(people(1, seed=3), 10, Filter(cameras=frozenset({2})))
    assert len(hits) == 10 and {hit.record.camera for hit in hits} == {2}


def test_compaction_makes_the_faiss_index_stale_and_the_search_exact(
    index: ApproximateDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    index.remove([f"p{k}" for k in range(2000)])
    (hits,) = index.search(people(4000, seed=1)[3000:3001], 1)
    assert hits[0].record.path == "p3000"
    assert "out of date" in caplog.text and "reidkit index add" in caplog.text


def test_a_small_index_is_not_approximated(tmp_path: Path) -> None:
    index = IndexDirectory.create(tmp_path / "few.index", HEADER)
    index.add(people(10, seed=1), [Record(f"p{k}") for k in range(10)])
    with pytest.raises(ConfigError, match="exact search is faster below 1,000"):
        build_approximation(index, "hnsw")
