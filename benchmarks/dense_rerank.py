"""k-reciprocal re-ranking as published, the reference of `ranking.py --case dense`."""

# Q queries, N = Q plus gallery, D embedding

from __future__ import annotations

import numpy as np


def dense_rerank(features: np.ndarray, Q: int, *, k1: int, k2: int, lam: float) -> np.ndarray:
    """The published procedure: dense [N, N] matrices, loops over rows."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    original = np.maximum(2 - 2 * unit @ unit.T, 0)
    np.fill_diagonal(original, 0)
    original /= original.max(axis=1, keepdims=True)
    order = np.argsort(original, axis=1, kind="stable").astype(np.int32)
    N = len(features)
    half = int(np.around(k1 / 2))

    def mutual(i: int, k: int) -> np.ndarray:
        near = order[i, : k + 1]
        return near[(order[near, : k + 1] == i).any(axis=1)]

    encoding = np.zeros((N, N), dtype=np.float32)
    for i in range(N):
        base = mutual(i, k1)
        expanded = base
        for candidate in base:
            candidates = mutual(candidate, half)
            if len(np.intersect1d(candidates, base)) > 2 / 3 * len(candidates):
                expanded = np.append(expanded, candidates)
        expanded = np.unique(expanded)
        weight = np.exp(-original[i, expanded])
        encoding[i, expanded] = weight / weight.sum()
    encoding = np.stack([encoding[order[i, :k2]].mean(axis=0) for i in range(N)])
    rows_with = [np.flatnonzero(column) for column in encoding.T]
    final = np.empty((Q, N - Q), dtype=np.float32)
    for i in range(Q):
        least = np.zeros(N, dtype=np.float32)
        for j in np.flatnonzero(encoding[i]):
            least[rows_with[j]] += np.minimum(encoding[i, j], encoding[rows_with[j], j])
        jaccard = 1 - least / (2 - least)
        final[i] = (1 - lam) * jaccard[Q:] + lam * original[i, Q:]
    return final
