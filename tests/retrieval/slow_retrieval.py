"""Slow, literal implementations that the tests compare with. No code is shared with reidkit."""

from __future__ import annotations

import numpy as np


def distance_matrix(query, gallery, metric="cosine"):
    """Dense float64 distances, 1 - cos or Euclidean, from plain loops over queries."""
    query, gallery = query.astype(np.float64), gallery.astype(np.float64)
    rows = []
    for q in query:
        if metric == "cosine":
            rows.append(1 - gallery @ q / (np.sqrt((gallery**2).sum(1)) * np.sqrt((q * q).sum())))
        else:
            rows.append(np.sqrt(((gallery - q) ** 2).sum(1)))
    return np.array(rows)


def ranked_matches(distances, q_pid, q_cam, pids, camids, roles, cameras=True):
    """One query's ranking as a list of bool (match or not) and of gallery indices."""
    order = sorted(range(len(pids)), key=lambda g: (distances[g], g))
    ranked = []
    for g in order:
        if roles[g] == "junk":
            continue
        if cameras and roles[g] == "person" and pids[g] == q_pid and camids[g] == q_cam:
            continue
        ranked.append(g)
    return [roles[g] == "person" and pids[g] == q_pid for g in ranked], ranked


def scores(flags):
    """(AP, INP, rank of the first match) of one ranking, or None without a match."""
    hits, total, last, first = 0, 0.0, 0, 0
    for rank, flag in enumerate(flags, start=1):
        if flag:
            hits += 1
            total += hits / rank
            last = rank
            first = first or rank
    return (total / hits, hits / last, first) if hits else None


def precision_recall_curve(flags):
    """scikit-learn's precision_recall_curve for a ranking of distinct scores: precision and recall
    with each item as the threshold, from the last one to the first, up to full recall; then the
    point (precision 1, recall 0)."""
    flags = np.asarray(flags, dtype=bool)
    true_positives = np.cumsum(flags)
    precision = true_positives / np.arange(1, len(flags) + 1)
    recall = true_positives / true_positives[-1]
    last = np.searchsorted(true_positives, true_positives[-1])
    return np.r_[precision[last::-1], 1.0], np.r_[recall[last::-1], 0.0]


def step_ap(flags):
    """average_precision_score of scikit-learn from 0.19 on: sum_n (R_n - R_(n-1)) P_n."""
    precision, recall = precision_recall_curve(flags)
    return -np.sum(np.diff(recall) * precision[:-1])


def trapezoid_ap(flags):
    """average_precision_score of scikit-learn up to 0.18: auc(recall, precision)."""
    precision, recall = precision_recall_curve(flags)
    return -np.trapezoid(precision, recall)


def evaluation(distances, q_pids, q_cams, pids, camids, roles, cameras=True, max_rank=50):
    """mAP, mINP, CMC and the per-query (AP, INP, first rank) by loops."""
    found = [
        scores(ranked_matches(d, p, c, pids, camids, roles, cameras)[0])
        for d, p, c in zip(distances, q_pids, q_cams, strict=True)
    ]
    known = [f for f in found if f is not None]
    cmc = [sum(f[2] <= k for f in known) / len(known) for k in range(1, max_rank + 1)]
    return {
        "mAP": sum(f[0] for f in known) / len(known),
        "mINP": sum(f[1] for f in known) / len(known),
        "cmc": cmc,
        "per_query": found,
    }


def rerank_dense(features, Q, k1=20, k2=6, lam=0.3, metric="cosine"):
    """k-reciprocal re-ranking of Zhong et al. (2017), dense and in float64.

    `features` [N, D]: queries first. Returns the final distance [Q, N - Q].
    """
    plain = distance_matrix(features, features, metric)
    squared = 2 * plain if metric == "cosine" else plain**2
    squared = np.maximum(squared, 0)
    np.fill_diagonal(squared, 0)
    squared[squared < 1e-12] = 0
    N = len(features)
    normed = np.array([squared[i] / squared[i].max() for i in range(N)])
    ranking = np.array([np.argsort(squared[i], kind="stable") for i in range(N)])

    def reciprocal(i, k):
        return [j for j in ranking[i, : k + 1] if i in ranking[j, : k + 1]]

    V = np.zeros((N, N))
    for i in range(N):
        base = reciprocal(i, k1)
        grown = set(base)
        for candidate in base:
            theirs = reciprocal(candidate, int(np.around(k1 / 2)))
            if len(set(theirs) & set(base)) > 2 / 3 * len(theirs):
                grown |= set(theirs)
        grown = sorted(grown)
        weight = np.exp(-normed[i, grown])
        V[i, grown] = weight / weight.sum()
    if k2 > 1:
        V = np.array([V[ranking[i, :k2]].mean(0) for i in range(N)])
    final = np.empty((Q, N - Q))
    for q in range(Q):
        for g in range(Q, N):
            least = np.minimum(V[q], V[g]).sum()
            jaccard = 1 - least / (2 - least)
            final[q, g - Q] = (1 - lam) * jaccard + lam * normed[q, g]
    return final
