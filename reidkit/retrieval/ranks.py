"""Ranks of true matches. Average precision needs nothing else: no order of the gallery is made.

A rank is a count. With few matches the row is counted through for each; with more, its values
(never indices) are sorted once, which NumPy's vector instructions do in 3 ns per value, and each
match is looked up.
"""

# B rows (queries) of one block, G gallery items, R true matches of one query

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reidkit.retrieval.distance import spread
from reidkit.retrieval.protocols import Matches

_COUNTED = 3
"""Up to so many matches a pass over the row per match is cheaper than sorting its values."""

_WORTH_PICKING = 16
"""Where all matches stand in the nearest 1/16, picking these values out first pays."""

_COUNTED_ON_DEVICE = 64


def exclude(block: Tensor, matches: Matches, start: int) -> None:
    """Puts what the queries start.. must not see at infinity, in place. `block` is [B, G]."""
    stop = start + len(block)
    low, high = matches.excluded_offsets[start], matches.excluded_offsets[stop]
    counts = np.diff(matches.excluded_offsets[start : stop + 1])
    rows = torch.from_numpy(np.repeat(np.arange(len(block)), counts)).to(block.device)
    columns = torch.from_numpy(matches.excluded[low:high]).to(block.device)
    block[rows, columns] = torch.inf
    if len(matches.junk):
        block[:, torch.from_numpy(matches.junk).to(block.device)] = torch.inf


def match_ranks(block: Tensor, matches: Matches, start: int) -> NDArray[np.int64]:
    """Ranks, from 1, of the true matches of queries start.. among what they see.

    An item stands before another if it is nearer, or as near and earlier in the gallery.

    Args:
        block: distances [B, G], excluded items at infinity (`exclude`).
    Returns:
        int64, one rank for each of the rows' entries in `matches.columns`, in that order.
    """
    if block.device.type != "cpu":
        return _ranks_on_device(block, matches, start)
    values = block.numpy()
    base = matches.offsets[start]
    ranks = np.empty(matches.offsets[start + len(values)] - base, dtype=np.int64)

    def count(first: int, last: int) -> None:
        for b in range(first, last):
            low, high = matches.offsets[start + b], matches.offsets[start + b + 1]
            ranks[low - base : high - base] = _row_ranks(values[b], matches.columns[low:high])

    spread(count, len(values))
    return ranks


def _row_ranks(row: NDArray[Any], columns: NDArray[np.int64]) -> NDArray[np.int64]:
    if len(columns) <= _COUNTED:
        return np.array([_count_before(row, column) for column in columns.tolist()], dtype=np.int64)
    values = row[columns]
    within = row <= values.max()
    near = np.count_nonzero(within) * _WORTH_PICKING < len(row)
    ordered = np.sort(row[within] if near else row)
    before = np.searchsorted(ordered, values, side="left")
    tied = np.searchsorted(ordered, values, side="right") - before > 1
    for i in np.flatnonzero(tied):  # rare: the row itself tells which of the equals come first
        before[i] += np.count_nonzero(row[: columns[i]] == values[i])
    return before + 1


def _count_before(row: NDArray[Any], column: int) -> int:
    value = row[column]
    nearer_or_equal = np.count_nonzero(row[:column] <= value)
    return 1 + int(nearer_or_equal + np.count_nonzero(row[column + 1 :] < value))


def _ranks_on_device(block: Tensor, matches: Matches, start: int) -> NDArray[np.int64]:
    B = len(block)
    offsets = matches.offsets[start : start + B + 1]
    counts = np.diff(offsets)
    R = int(counts.max(initial=0))
    if R == 0:
        return np.empty(0, dtype=np.int64)
    owned = np.arange(R) < counts[:, None]  # [B, R], false in the padding
    padded = np.zeros((B, R), dtype=np.int64)
    padded[owned] = matches.columns[offsets[0] : offsets[-1]]
    columns = torch.from_numpy(padded).to(block.device)
    ranking = _by_counting if R <= _COUNTED_ON_DEVICE else _by_sorting
    return np.asarray(ranking(block, columns).cpu().numpy()[owned], dtype=np.int64)


def _by_counting(block: Tensor, columns: Tensor) -> Tensor:
    values = block.gather(1, columns)
    position = torch.arange(block.shape[1], device=block.device)
    ranks = torch.empty_like(columns)
    for r in range(columns.shape[1]):
        value, column = values[:, r : r + 1], columns[:, r : r + 1]
        nearer = (block < value).sum(1)
        ranks[:, r] = 1 + nearer + ((block == value) & (position < column)).sum(1)
    return ranks


def _by_sorting(block: Tensor, columns: Tensor) -> Tensor:
    order = block.sort(dim=1, stable=True).indices
    ranks = torch.empty_like(order)
    ranks.scatter_(
        1, order, torch.arange(1, block.shape[1] + 1, device=block.device).expand_as(order)
    )
    return ranks.gather(1, columns)
