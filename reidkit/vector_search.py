"""Search and re-ranking in one call: of arrays, tensors, features files and indexes."""

# Q queries, G gallery items, n list length, D embedding

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from reidkit.data.readers.rows import IMAGE_SUFFIXES
from reidkit.errors import ConfigError, DataError
from reidkit.features import Features, read_features
from reidkit.files import user_path
from reidkit.index.filling import header_of
from reidkit.index.opening import open_index
from reidkit.index.records import Hit, Record, is_index, is_qdrant
from reidkit.index.searching import record_of, search_index
from reidkit.retrieval import JUNK, Embeddings, RankingConfig, RerankConfig, top_n
from reidkit.retrieval.ranking import open_distances

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

Vectors: TypeAlias = "ArrayLike | torch.Tensor | Embeddings | Features | str | Path"
"""Vectors [N, D], with or without labels, or a features file."""


@dataclass(frozen=True)
class SearchResult:
    """The nearest gallery items of every query, nearest first, ties by gallery order.

    Attributes:
        distances: float32 [Q, n], 1 - cos, or re-ranked; infinite where a query has fewer than n
            items.
        indices: int64 [Q, n], rows of the gallery; -1 where a query has fewer than n items, and in
            results of an index, whose items are known by their path.
        records: of every query, the items' path, person, camera and time; empty if the gallery is
            an array.
    """

    distances: NDArray[np.float32]
    indices: NDArray[np.int64]
    records: tuple[tuple[Record, ...], ...] = ()

    def __repr__(self) -> str:
        Q, n = self.distances.shape
        return f"SearchResult({Q} queries, {n} nearest each)"


def search(
    query: Vectors,
    gallery: Vectors,
    top: int = 10,
    *,
    rerank: bool | RerankConfig = False,
    max_memory: int | None = None,
    device: torch.device | str | None = None,
) -> SearchResult:
    """The nearest gallery items of every query by cosine, or after re-ranking.

    The vectors need not be L2-normalised. Junk in the gallery is not found.

    Args:
        query: no, one or several vectors [Q, D], or a features file.
        gallery: likewise, at least one; or the address of an index: its directory, or
            qdrant://HOST:PORT/COLLECTION.
        top: n; at most the size of the gallery is returned.
        rerank: k-reciprocal re-ranking, by which queries influence one another.
        max_memory: bytes in addition to the vectors; None: the fastest block sizes. An index has a
            bound of its own.
        device: of the matrix products, for an index always the CPU; None is the CPU.

    Raises:
        DataError: there is no such file or index, shapes do not fit, the two were embedded by
            different models, or a vector is zero or not finite.
        ConfigError: `top` is below 1, or an index is to be re-ranked.
    """
    if top < 1:
        raise ConfigError(f"found top={top}, expected at least 1")
    if isinstance(gallery, str | Path) and not is_qdrant(str(gallery)):
        gallery = user_path(gallery)
    if isinstance(gallery, str | Path) and is_index(str(gallery)):
        if rerank:
            raise ConfigError(
                f"{gallery} is an index, which cannot be re-ranked: re-ranking needs all gallery "
                "vectors. Search a features file, or leave rerank out"
            )
        return _search_index(query, str(gallery), top)
    found = _read(gallery, "gallery")
    stored = _as_embeddings(found, "gallery")
    n = min(top, len(stored))
    queries = _read(query, "query")
    if _is_empty(queries):
        return SearchResult(np.empty((0, n), np.float32), np.empty((0, n), np.int64))
    _check_same_model(queries, found)
    options = RerankConfig() if rerank is True else rerank or None
    config = RankingConfig("none", rerank=options, max_memory=max_memory, device=device)
    lists = top_n(_as_embeddings(queries, "query", roles=False), stored, n, config)
    records: tuple[tuple[Record, ...], ...] = ()
    if isinstance(found, Features):
        records = tuple(
            tuple(record_of(found, row) for row in rows if row >= 0)
            for rows in lists.indices.tolist()
        )
    return SearchResult(lists.distances.astype(np.float32, copy=False), lists.indices, records)


def rerank(
    query: Vectors,
    gallery: Vectors,
    *,
    k1: int = 20,
    k2: int = 6,
    lam: float = 0.3,
    max_memory: int | None = None,
    device: torch.device | str | None = None,
) -> NDArray[np.float32]:
    """k-reciprocal re-ranking (Zhong et al. 2017): distances of all pairs.

    Apart from the result, 4 bytes for each pair, memory is bounded. For the nearest items alone:
    `search(query, gallery, rerank=True)`; for mAP and CMC: `retrieval.compute_metrics`.

    Args:
        query, gallery: vectors [Q, D] and [G, D], or features files.
        k1, k2, lam: as in the paper, lam the weight of the original distance in [0, 1].
        max_memory: bytes in addition to vectors and result; None: the fastest block sizes.
        device: of the matrix products; None is the CPU.
    Returns:
        float32 [Q, G] in [0, 1], (1 - lam) Jaccard + lam original; infinite for junk.
    Raises:
        DataError: as `search`, or the gallery has fewer than k1 items.
        ConfigError: a parameter is out of range.
    """
    options = RerankConfig(k1, k2, lam)
    queries, found = _read(query, "query"), _read(gallery, "gallery")
    stored = _as_embeddings(found, "gallery")
    if _is_empty(queries):
        return np.empty((0, len(stored)), np.float32)
    _check_same_model(queries, found)
    config = RankingConfig("none", rerank=options, max_memory=max_memory, device=device)
    distances, blocks = open_distances(
        _as_embeddings(queries, "query", roles=False), stored, config, None
    )
    result = np.empty(distances.shape, np.float32)
    for start, stop in blocks:
        result[start:stop] = distances.block(start, stop).cpu().numpy()
    result[:, stored.roles == JUNK] = np.inf
    return result


def _search_index(query: Vectors, address: str, top: int) -> SearchResult:
    index = open_index(address)
    queries = _read(query, "query")
    lists: Sequence[Sequence[Hit]] = []
    if isinstance(queries, Features) and not _is_empty(queries):
        lists = search_index(queries, index, top)
    elif not _is_empty(queries):
        lists = index.search(_as_embeddings(queries, "query").features, top)
    n = min(top, len(index))
    distances = np.full((len(lists), n), np.inf, np.float32)
    for q, hits in enumerate(lists):
        distances[q, : len(hits)] = [hit.distance for hit in hits]
    return SearchResult(
        distances,
        np.full((len(lists), n), -1, np.int64),
        tuple(tuple(hit.record for hit in hits) for hits in lists),
    )


def _read(vectors: Vectors, name: str) -> Any:
    """Features for the path of a features file; anything else as it is."""
    if not isinstance(vectors, str | Path):
        return vectors
    path = user_path(vectors)
    if is_index(str(path)):
        raise DataError(
            f"{name}: {path} is an index, expected vectors or a features file. Search it: "
            f"reidkit.search(query, {str(path)!r})"
        )
    if path.is_dir():
        raise DataError(
            f"{name}: {path} is a folder without an index. Build an index of its images: "
            f"reidkit index build people.index {path} --model MODEL"
        )
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise DataError(
            f"{name}: {path} is an image, expected a features file. Embed it first: "
            f"reidkit.load(MODEL).embed({str(path)!r})"
        )
    return read_features(path)


def _is_empty(vectors: Any) -> bool:
    """Whether there are no vectors, as after embedding no images."""
    array = vectors.features if isinstance(vectors, Features | Embeddings) else vectors
    if hasattr(array, "shape"):
        return bool(array.shape[:1] == (0,))
    return isinstance(array, Sequence) and not array


def _as_embeddings(vectors: Any, name: str, *, roles: bool = True) -> Embeddings:
    """Embeddings for `retrieval`, without labels where there are none.

    Args:
        roles: keep those of features. Without labels, an image of unknown identity counts as junk,
            which a gallery leaves out and a query may well be.
    """
    if isinstance(vectors, Embeddings):
        return vectors
    if isinstance(vectors, Features):
        codes = vectors.roles if roles else np.zeros_like(vectors.roles)
        return Embeddings(vectors.features, vectors.pids, vectors.camids, codes, name)
    return Embeddings.without_labels(vectors, name)


def _check_same_model(query: Any, gallery: Any) -> None:
    if isinstance(query, Features) and isinstance(gallery, Features):
        header_of(gallery).check_same_model(header_of(query), where="the gallery")
