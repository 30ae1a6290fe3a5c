"""k-reciprocal re-ranking the way it is published: what `ranking.py --case dense` compares with."""

# Q queries, N = Q plus gallery, D embedding

from __future__ import annotations

import numpy as np


def dense_rerank(features: np.ndarray, Q: int, *, k1: int, k2: int, lam: float) -> np.ndarray:
    """The published procedure as everybody runs it: dense [N, N] matrices, loops over rows."""
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
        grown = base
        for candidate in base:
            theirs = mutual(candidate, half)
            if len(np.intersect1d(theirs, base)) > 2 / 3 * len(theirs):
                grown = np.append(grown, theirs)
        grown = np.unique(grown)
        weight = np.exp(-original[i, grown])
        encoding[i, grown] = weight / weight.sum()
    encoding = np.stack([encoding[order[i, :k2]].mean(axis=0) for i in range(N)])
    holders = [np.flatnonzero(column) for column in encoding.T]
    final = np.empty((Q, N - Q), dtype=np.float32)
    for i in range(Q):
        least = np.zeros(N, dtype=np.float32)
        for j in np.flatnonzero(encoding[i]):
            least[holders[j]] += np.minimum(encoding[i, j], encoding[holders[j], j])
        jaccard = 1 - least / (2 - least)
        final[i] = (1 - lam) * jaccard[Q:] + lam * original[i, Q:]
    return final
